//! Alibaba's trace of image generation (GenTD26, `lora_request_trace.csv`; research and study use):
//! one request of a Stable Diffusion service per row, stamps of one second.
//!
//! The tenant is `groupId`, the model `checkpoint_model_version_id`, `items` the images per prompt,
//! and `work` the denoising steps over 30, the trace's usual number. Requests that did not succeed
//! are kept: they arrived all the same; rows that name no model, steps or images are left out.

use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::Nanos;

use crate::decimal;
use crate::error::TraceError;
use crate::format::{Format, ReadOptions};
use crate::read::timed::{Origin, Parser, Record, Timed};
use crate::row::{Columns, Meta, Names, Row, Stream, Tally, legal_name};
use crate::table::Table;

pub(crate) const FORMAT: Format = Format {
    name: "genai",
    summary: "Alibaba GenTD26: image generation, whole seconds",
    open,
    sniff: |probe| {
        let has = |l: &String| l.starts_with("gmt_create,") && l.contains("groupId");
        probe.lines.first().is_some_and(has)
    },
};

const COLUMNS: [&str; 11] = [
    "gmt_create",
    "groupId",
    "checkpoint_model_version_id",
    "num_images_per_prompt",
    "num_inference_steps",
    "predict_status",
    "predict_type",
    "exec_time_seconds",
    "prompt_length",
    "negative_prompt_length",
    "num_lora",
];
const QUANTUM_NS: u64 = 1_000_000_000;
/// Steps of a request whose work is 1.
const USUAL_STEPS: f32 = 30.0;
const INCOMPLETE: &str = "incomplete";

struct Reader {
    table: Table,
    columns: [usize; 6],
    names: Names,
}

fn open(path: &Path, options: &ReadOptions) -> Result<Stream, TraceError> {
    let (_, mut table) = Table::open(path, None)?;
    let kept = table.only_or_keep(&COLUMNS, options.keep_extra)?;
    let mut columns = [0; 6];
    for (at, name) in columns.iter_mut().zip(COLUMNS) {
        *at = table.require(name)?;
    }
    let (name, tally) = (table.file.clone(), Arc::new(Tally::default()));
    tally.drop_rows(INCOMPLETE, 0);
    let reader = Reader { table, columns, names: Names::default() };
    let shared = Arc::clone(&tally);
    let rows = Timed::new(reader, &name, Origin::First, QUANTUM_NS, options.sort, shared);
    let mut meta = Meta::default();
    meta.push("licence", "research and study use");
    meta.push("quantum_ns", QUANTUM_NS.to_string());
    let extra = std::iter::once("x_status".to_owned()).chain(kept).collect();
    let columns = Columns { items: true, work: true, extra, ..Columns::default() };
    Ok(Stream { name, meta, columns, tally, rows: Box::new(rows) })
}

impl Parser for Reader {
    fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        if !self.table.advance()? {
            return Ok(None);
        }
        let [stamp, group, model, images, steps, status] = self.columns;
        let table = &self.table;
        let at = decimal::datetime(table.get(stamp))
            .ok_or_else(|| table.bad(stamp, "a time such as 2024-11-15 16:57:50"))?;
        // Whole numbers are written `8.0`.
        let count = |column| match table.get(column) {
            "" => Ok(None),
            text => decimal::scaled(text, 0)
                .ok()
                .and_then(|n| u32::try_from(n).ok())
                .map(Some)
                .ok_or_else(|| table.bad(column, "a whole number")),
        };
        let (images, steps) = (count(images)?, count(steps)?);
        let tenant = self.names.get(&legal_name(table.get(group), 64));
        let name = table.get(model);
        let model = self.names.get(&legal_name(if name.is_empty() { "none" } else { name }, 64));
        let mut row = Row::new(Nanos::ZERO, tenant, model);
        let complete = !name.is_empty() && images > Some(0) && steps > Some(0);
        (row.items, row.work) = (images.unwrap_or(1), steps.unwrap_or(1) as f32 / USUAL_STEPS);
        row.extra.push(self.names.get(table.get(status)));
        row.extra.extend(table.kept());
        Ok(Some(Record { at, row, drop: (!complete).then_some(INCOMPLETE) }))
    }

    fn line(&self) -> u64 {
        self.table.line()
    }
}
