//! Triton's `config.pbtxt`: batching and model instances.
//!
//! Grammar: protobuf's text format with Triton's own schema, `model_config.proto`, as the descriptor in
//! `triton_model_config.desc`, taken from NVIDIA's `tritonclient` 2.57.0 (BSD 3-Clause; see
//! `LICENSE-triton` beside it). What Triton does without a word: an empty `gpus` means `count` instances on
//! *every* GPU; `kind` AUTO falls back to the CPU; priorities and resources of the rate limiter do
//! nothing without `--rate-limit=execution_count`; a delay of 0 never waits for a batch to fill.

use std::sync::OnceLock;

use cotenant_profiles::Nanos;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, Value};

use crate::finding::{ReadError, Weight, line_of};
use crate::found::{Found, Mechanism};
use crate::plan::{Emitted, Plan, Sharing};

/// The schema.
fn schema() -> &'static MessageDescriptor {
    static SCHEMA: OnceLock<MessageDescriptor> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut pool = DescriptorPool::new();
        pool.decode_file_descriptor_proto(&include_bytes!("triton_model_config.desc")[..])
            .expect("a descriptor that a test reads");
        pool.get_message_by_name("inference.ModelConfig").expect("the schema's root")
    })
}

pub(crate) fn emit(plan: &Plan) -> Result<Emitted, String> {
    let mut files = vec![];
    for placed in plan.all() {
        let t = placed.tenant;
        if t.engine.is_some() {
            continue;
        }
        let streams = matches!(placed.gpu.sharing, Sharing::Streams);
        let count = if streams { t.workers } else { 1 };
        let per = match streams {
            true => {
                "# One server for all models of the GPU: instances are streams of one process.\n"
                    .to_owned()
            }
            false => format!(
                "# A server of its own for each of {} process{}, not one for all models: instances of one \
                 server share its context.\n",
                t.workers,
                if t.workers == 1 { "" } else { "es" }
            ),
        };
        let mut text = format!(
            "# tenant={} gpu={}\n{per}name: \"{}\"\nmax_batch_size: {}\ninstance_group [\n  {{\n    kind: \
             KIND_GPU\n    count: {count}\n    gpus: [ {} ]\n  }}\n]\n",
            t.name,
            placed.index,
            t.model,
            t.batch_max,
            if streams { placed.index } else { 0 }
        );
        if t.batch_max > 1 {
            let us = t.batch_timeout.0 / 1000;
            text += &format!("dynamic_batching {{\n  max_queue_delay_microseconds: {us}\n}}\n");
        }
        files.push(plan.file(format!("triton/{}/config.pbtxt", placed.name), &text));
    }
    Ok(if files.is_empty() { Emitted::Nothing } else { Emitted::Files(files) })
}

pub(crate) fn recognises(path: &str, text: &str) -> bool {
    path.ends_with(".pbtxt") || (text.contains("instance_group") && text.contains('{'))
}

pub(crate) fn read(path: &str, text: &str, found: &mut Found) -> Result<(), ReadError> {
    let config = DynamicMessage::parse_text_format(schema().clone(), &with_colons(text))
        .map_err(|e| ReadError::new(path, line_of_error(text, &e), "", e.to_string()))?;
    let at = |keys: &[&str]| line_of(text, keys);
    let (mut tenant, mut gpu) = (None, None);
    for word in
        text.lines().filter_map(|l| l.trim().strip_prefix('#')).flat_map(str::split_whitespace)
    {
        if let Some(name) = word.strip_prefix("tenant=") {
            tenant = Some(name.to_owned());
        } else if let Some(index) = word.strip_prefix("gpu=") {
            gpu = index.parse::<u32>().ok();
        }
    }
    let own = tenant.is_some();
    let name = string(&config, "name").filter(|n| !n.is_empty());
    // Triton itself takes the folder's name where the file gives none.
    let folder = path.rsplit('/').nth(1).map(str::to_owned);
    let Some(tenant) = tenant.or(name).or(folder) else {
        return Err(ReadError::new(path, None, "name", "is missing: it tells which model this is"));
    };
    let batch = number(&config, "max_batch_size").unwrap_or(0);
    let batching =
        has(&config, "dynamic_batching").then(|| message(&config, "dynamic_batching")).flatten();
    let mut count = 0;
    for group in messages(&config, "instance_group") {
        let n = number(&group, "count").filter(|n| *n > 0).unwrap_or(1);
        count += n;
        if number_list(&group, "gpus") == 0 {
            let what = format!("without `gpus`, {n} instance(s) on every GPU of the server");
            found.tell(Weight::Note, path, at(&["instance_group"]), "instance_group.gpus", what);
        }
        if has(&group, "rate_limiter") {
            let what = "does nothing unless the server runs with --rate-limit=execution_count";
            found.tell(
                Weight::Ignored,
                path,
                at(&["rate_limiter"]),
                "instance_group.rate_limiter",
                what,
            );
        }
    }
    let delay =
        batching.as_ref().and_then(|b| number(b, "max_queue_delay_microseconds")).unwrap_or(0);
    if batching.is_none() && batch > 1 {
        let what = format!(
            "max_batch_size is {batch}, but without dynamic_batching every request runs as a batch of its own"
        );
        found.tell(Weight::Ignored, path, at(&["max_batch_size"]), "max_batch_size", what);
    }
    if let Some(levels) =
        batching.as_ref().and_then(|b| number(b, "priority_levels")).filter(|l| *l > 0)
    {
        let what = format!("{levels} levels in strict order, 1 first; not part of what is checked");
        found.tell(
            Weight::Note,
            path,
            at(&["priority_levels"]),
            "dynamic_batching.priority_levels",
            what,
        );
    }
    let entry = found.tenant(&tenant, gpu);
    entry.instances = Some(count.max(1) as u32);
    entry.batch_max = Some(if batching.is_some() { batch.max(1) as u32 } else { 1 });
    entry.batch_timeout = Some(Nanos(delay as u64 * 1000));
    // A server of somebody else's holds its models in one process; ours say how they are shared.
    let streams = !own || text.contains("instances are streams of one process");
    if streams {
        found.shared_by(Mechanism::Streams);
    }
    Ok(())
}

/// The text with a colon before every list: the text format lets it be left out before lists of
/// messages, and the library does not. Lines stay where they are.
fn with_colons(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut last = ' ';
    for line in text.split_inclusive('\n') {
        let mut quote = None;
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(_), '\\') => {
                    out.push(c);
                    out.extend(chars.next());
                    continue;
                }
                (Some(q), _) if c == q => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '#') => {
                    out.push(c);
                    out.push_str(chars.as_str());
                    break;
                }
                (None, '[') if last.is_ascii_alphanumeric() || last == '_' => out.push(':'),
                _ => {}
            }
            out.push(c);
            if !c.is_whitespace() {
                last = c;
            }
        }
    }
    out
}

fn line_of_error(text: &str, error: &dyn miette::Diagnostic) -> Option<usize> {
    let offset = error.labels()?.next()?.offset();
    // Colons that were added shift columns, and lines by nothing.
    let given = with_colons(text);
    Some(given.get(..offset)?.matches('\n').count() + 1)
}

fn has(message: &DynamicMessage, field: &str) -> bool {
    message.has_field_by_name(field)
}

fn message(of: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    of.get_field_by_name(field)?.as_message().cloned()
}

fn messages(of: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let value = of.get_field_by_name(field);
    let list = value.as_ref().and_then(|v| v.as_list());
    list.into_iter().flatten().filter_map(|v| v.as_message().cloned()).collect()
}

fn string(of: &DynamicMessage, field: &str) -> Option<String> {
    of.get_field_by_name(field)?.as_str().map(str::to_owned)
}

fn number(of: &DynamicMessage, field: &str) -> Option<i64> {
    debug_assert!(of.descriptor().get_field_by_name(field).is_some(), "{field}");
    match of.get_field_by_name(field)?.as_ref() {
        Value::I32(n) => Some(i64::from(*n)),
        Value::U32(n) => Some(i64::from(*n)),
        Value::I64(n) => Some(*n),
        Value::U64(n) => Some(*n as i64),
        _ => None,
    }
}

fn number_list(of: &DynamicMessage, field: &str) -> usize {
    of.get_field_by_name(field).and_then(|v| v.as_list().map(<[Value]>::len)).unwrap_or(0)
}
