//! Readers of public trace formats: one file per format, one registry.

use std::io::Read as _;
use std::path::Path;

use cotenant_profiles::Nanos;

use crate::canonical;
use crate::error::{TraceError, hint};
use crate::format::{Format, Probe, ReadOptions};
use crate::io;
use crate::row::{NAME_RULE, Row, Source, Stream, is_name, legal_name};

pub mod azure_llm;
pub mod burstgpt;
pub mod counts;
pub mod disb;
pub mod genai;
pub mod intervals;
pub mod maf1;
pub mod maf2;
pub mod mooncake;
pub mod servegen;
pub mod splitwise;
pub mod vidur;

pub(crate) mod timed;

/// Every format, in the order in which a file's format is guessed.
pub const FORMATS: &[Format] = &[
    Format {
        name: "canonical",
        summary: "cotenant-trace v1",
        open: canonical::open,
        sniff: canonical::sniff,
    },
    counts::FORMAT,
    azure_llm::FORMAT,
    maf1::FORMAT,
    maf2::FORMAT,
    burstgpt::FORMAT,
    vidur::FORMAT,
    splitwise::FORMAT,
    genai::FORMAT,
    mooncake::MOONCAKE,
    mooncake::BAILIAN,
    disb::FORMAT,
    servegen::FORMAT,
    intervals::FORMAT,
];

/// Opens a trace. Without a format name the format is told from the file's beginning.
///
/// # Errors
/// An unknown format, or what the format's reader finds wrong.
pub fn open(
    path: &Path,
    format: Option<&str>,
    options: &ReadOptions,
) -> Result<Stream, TraceError> {
    let format = match format {
        Some(name) => find(name)?,
        None => sniff(path)?,
    };
    let mut stream = (format.open)(path, options)?;
    if format.name != "canonical" {
        let source = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        stream.meta.0.insert(0, ("source".to_owned(), source));
        stream.meta.0.insert(1, ("format".to_owned(), format.name.to_owned()));
    }
    rename(stream, options)
}

/// The format of that name.
///
/// # Errors
/// There is no such format.
pub fn find(name: &str) -> Result<&'static Format, TraceError> {
    FORMATS.iter().find(|f| f.name == name).ok_or_else(|| TraceError::UnknownFormat {
        name: name.to_owned(),
        hint: hint(name, FORMATS.iter().map(|f| f.name)),
    })
}

/// The format that a file looks like.
///
/// # Errors
/// It looks like none.
pub fn sniff(path: &Path) -> Result<&'static Format, TraceError> {
    let probe = probe(path)?;
    if let Some(what) = no_requests(&probe) {
        let problem = format!("{what}: this is not a request trace");
        return Err(TraceError::file(&io::name_of(path), problem));
    }
    FORMATS.iter().find(|f| (f.sniff)(&probe)).ok_or_else(|| {
        let known: Vec<_> = FORMATS.iter().map(|f| f.name).collect();
        let problem = format!(
            "the format is not recognised; name one of {}, or name the columns as a canonical trace \
             has them: arrival_s (or arrival_ms, arrival_us, arrival_ns), and tenant, model, items, \
             tokens_in, tokens_out as there are",
            known.join(", ")
        );
        TraceError::file(&io::name_of(path), problem)
    })
}

/// What a file of a known kind is that holds no requests.
fn no_requests(probe: &Probe) -> Option<&'static str> {
    let has = |words: &[&str]| words.iter().all(|w| probe.lines.iter().any(|l| l.contains(w)));
    let jobs = "a log of cluster jobs, each hours of training and not an inference";
    // Philly; Helios and Acme; Alibaba spot.
    let philly = has(&["\"jobid\"", "\"vc\""]) || has(&["\"attempts\""]);
    if philly || has(&["job_id", "gpu_num"]) || has(&["job_name", "organization"]) {
        Some(jobs)
    } else if has(&["cpu_milli", "gpu_milli"]) || has(&["instance_sn", "role"]) {
        Some("a list of pods (Alibaba), each a service and not a request")
    } else if has(&["timestamp_anon", "container_ip"]) {
        Some("samples of request rates per container (Alibaba); sum them to a counts file")
    } else if has(&["\"traceEvents\""]) || has(&["schemaVersion"]) {
        Some("a recording of kernels; read it with `cotenant profile import`")
    } else {
        None
    }
}

fn probe(path: &Path) -> Result<Probe, TraceError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let is_dir = path.is_dir();
    let mut probe = Probe { is_dir, name, lines: Vec::new(), first: String::new() };
    if is_dir {
        return Ok(probe);
    }
    let mut head = Vec::new();
    let input = io::open(path)?;
    let fail = |cause| TraceError::io(&io::name_of(path), cause);
    // A header of 1,440 minutes is 6 kB long.
    input.take(1 << 16).read_to_end(&mut head).map_err(fail)?;
    let text = String::from_utf8_lossy(&head);
    probe.first = text.lines().next().unwrap_or("").to_owned();
    let is_data = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    probe.lines = text.lines().filter(is_data).take(3).map(str::to_owned).collect();
    Ok(probe)
}

/// Applies the tenant and model of the options.
fn rename(mut stream: Stream, options: &ReadOptions) -> Result<Stream, TraceError> {
    for (field, name) in [("tenant", &options.tenant), ("model", &options.model)] {
        if let Some(name) = name.as_deref().filter(|name| !is_name(name)) {
            return Err(TraceError::spec(field, format!("`{name}` is not {NAME_RULE}")));
        }
    }
    if options.tenant.is_some() || options.model.is_some() {
        let (tenant, model) = (options.tenant.as_deref(), options.model.as_deref());
        let (tenant, model) = (tenant.map(Into::into), model.map(Into::into));
        stream.rows = Box::new(Renamed { inner: stream.rows, tenant, model });
    }
    Ok(stream)
}

struct Renamed {
    inner: Box<dyn Source>,
    tenant: Option<std::sync::Arc<str>>,
    model: Option<std::sync::Arc<str>>,
}

impl Source for Renamed {
    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        let Some(mut row) = self.inner.next_row()? else { return Ok(None) };
        row.tenant = self.tenant.clone().unwrap_or(row.tenant);
        row.model = self.model.clone().unwrap_or(row.model);
        Ok(Some(row))
    }

    fn duration(&self) -> Option<Nanos> {
        self.inner.duration()
    }
}

/// A tenant name from a file name: without folder, endings and the words that every file of the
/// format carries.
pub(crate) fn stem(path: &Path, prefix: &str, suffix: &str) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut name = name.as_ref();
    for ending in [".gz", ".zst", ".csv", ".txt", ".jsonl", ".json"] {
        name = name.strip_suffix(ending).unwrap_or(name);
    }
    let short = name.strip_prefix(prefix).unwrap_or(name);
    let short = short.strip_suffix(suffix).unwrap_or(short);
    legal_name(if short.is_empty() { "trace" } else { short }, 64)
}
