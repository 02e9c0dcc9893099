//! Turns a recording's passes into a model: launches, kernels that keep the recording's time, a report.

use std::collections::BTreeMap;

use super::clean::{Place, Timeline};
use super::host::Timing;
use super::passes::{Passes, Typical, busy_ns};
use super::{Recording, Shape, StreamOptions};
use crate::Device;
use crate::curve::{Curve, Point};
use crate::files::{MODEL_NAME, is_model_name};
use crate::import::{Builder, Import, ImportError, one_line, op_of};
use crate::kernel;
use crate::stats::quantile;
use crate::units::{Bytes, Nanos};

/// A launch with more host time than this is taken for a mistake; the slowest frameworks need a
/// thousandth of it.
const LONGEST_LAUNCH: Nanos = Nanos(1_000_000_000);

/// Launches of one name and shape are one kernel if the longest takes at most this multiple of the
/// shortest. Beyond that their work differs (messages of collectives, ragged attention).
const SAME_WORK: f64 = 1.25;

/// If one in this many kernels overlaps on its stream, that is more than early starts of dependent
/// launches explain.
const MANY: usize = 5;

/// One launch of the model before kernels are told apart.
struct Position {
    name: u32,
    shape: Shape,
    ns: u64,
    samples: Vec<u64>,
}

impl Recording {
    /// Makes a model of the recording: the launches of the typical pass, with their durations, shapes
    /// and host times, on `device`.
    ///
    /// # Errors
    /// There is no kernel, several GPUs and none chosen, a range or step that does not exist, or
    /// neither marks nor a repetition that explains the launches.
    pub fn model(&self, device: &Device, options: &StreamOptions) -> Result<Import, ImportError> {
        if !is_model_name(&options.model) {
            return Err(self.bad("model", &options.model, MODEL_NAME));
        }
        if options.batch == 0 {
            return Err(self.bad("batch", "0", "a batch size of at least 1"));
        }
        if let Some(long) = options.launch.filter(|l| *l > LONGEST_LAUNCH) {
            return Err(self.bad("launch", long.to_string(), format!("at most {LONGEST_LAUNCH}")));
        }
        if let Some(rows) = &self.summary {
            let launch = options.launch.or(Some(device.costs.launch));
            let options = StreamOptions { launch, ..options.clone() };
            return self.of_summary(rows, &options)?.model(device, &options);
        }
        let timeline = self.timeline(self.gpu_index(options.gpu)?)?;
        let found = self.passes(&timeline, options)?;
        let typical = self.typical(&timeline, &found, options.step)?;
        let positions = self.positions(&timeline, &found, &typical);
        let stream = Self::by_stream(&timeline, &found.passes[typical.timing]);
        // Where each of its launches stands stream by stream, by its place.
        let mut place: Vec<(Place, usize)> = stream.into_iter().zip(0..).collect();
        place.sort_unstable();
        let place = |i: Place| {
            let found = place.binary_search_by_key(&i, |p| p.0);
            found.map_or(0, |at| place[at].1)
        };
        let mut timing =
            self.timing(&timeline, &found, typical.timing, |i| positions[place(i)].ns, device);
        if let Some(given) = options.launch {
            timing.host.fill(given.0);
        }
        let report = self.report(&timeline, &found, &typical, &positions, &timing, options);
        let mut facts = self.facts.clone();
        facts.push(("curves", "one point, on all CUs".to_owned()));
        facts.extend(report.facts);
        let mut builder = Builder::new(device, &facts);
        let kernels = self.kernels(&mut builder, &positions, device, options);
        for (i, host) in timing.order.iter().zip(&timing.host) {
            builder.launch(&options.model, options.batch, kernels[place(*i)], Nanos(*host));
        }
        if let Some(model) = builder.profile.models.get_mut(&options.model) {
            let per_item = |bytes: u64| Bytes(bytes / u64::from(options.batch));
            model.input_per_item = per_item(timing.input);
            model.output_per_item = per_item(timing.output);
        }
        let used: usize = typical.alike.iter().map(|&p| found.passes[p].launches.len()).sum();
        let mut dropped = timeline.dropped.clone();
        let other = timeline.launches.len() - found.outside - used;
        let outside =
            if found.marked { "outside the passes" } else { "outside the repeating rounds" };
        for (why, n) in
            [(outside, found.outside), ("of passes that differ from the one taken", other)]
        {
            if n > 0 {
                dropped.insert(why, n);
            }
        }
        let kept = dropped.remove(super::clean::CLIPPED);
        let rows = used + dropped.values().sum::<usize>();
        let mut import = builder.finish(rows, dropped);
        import.notes = report.notes;
        import.warnings = self.warnings.clone();
        import.warnings.extend(report.warnings);
        if let Some(n) = kept {
            import.notes.push(format!("{} {n}", super::clean::CLIPPED));
        }
        Ok(import)
    }

    /// What each launch of the pass stands for, stream by stream.
    fn positions(&self, timeline: &Timeline, found: &Passes, typical: &Typical) -> Vec<Position> {
        let order = |p: usize| Self::by_stream(timeline, &found.passes[p]);
        let middle: Vec<Vec<Place>> = typical.middle.iter().map(|&p| order(p)).collect();
        let took = |i: Place| timeline.at(i).kernel.duration;
        let positions = middle[0].iter().enumerate().map(|(position, &i)| {
            let kernel = &timeline.at(i).kernel;
            let sum: u64 = middle.iter().fold(0, |s, o| s.saturating_add(took(o[position])));
            Position {
                name: kernel.name,
                shape: self.shapes[kernel.shape as usize],
                ns: (sum / middle.len() as u64).max(1),
                samples: Vec::with_capacity(typical.alike.len()),
            }
        });
        let mut positions: Vec<Position> = positions.collect();
        for &pass in &typical.alike {
            for (position, place) in positions.iter_mut().zip(order(pass)) {
                position.samples.push(took(place));
            }
        }
        positions
    }

    /// Tells kernels apart by name, shape and work; the sum over the launches of a kernel stays.
    fn kernels(
        &self,
        builder: &mut Builder<'_>,
        positions: &[Position],
        device: &Device,
        options: &StreamOptions,
    ) -> Vec<usize> {
        let mut same: BTreeMap<(u32, Shape), Vec<usize>> = BTreeMap::new();
        for (i, p) in positions.iter().enumerate() {
            same.entry((p.name, p.shape)).or_default().push(i);
        }
        // Kernels are numbered in the order of their first launch.
        let mut works: Vec<Vec<usize>> = Vec::new();
        for mut launches in same.into_values() {
            launches.sort_by_key(|&i| (positions[i].ns, i));
            let mut work: Vec<usize> = Vec::new();
            for i in launches {
                let shortest = work.first().map_or(0, |&f| positions[f].ns);
                if !work.is_empty() && positions[i].ns as f64 > shortest as f64 * SAME_WORK {
                    works.push(std::mem::take(&mut work));
                }
                work.push(i);
            }
            works.push(work);
        }
        works.sort_by_key(|w| w.iter().min().copied());
        let mut kernel_of = vec![0; positions.len()];
        for work in works {
            let kernel = self.kernel(builder, positions, &work, device, options);
            work.iter().for_each(|&i| kernel_of[i] = kernel);
        }
        kernel_of
    }

    fn kernel(
        &self,
        builder: &mut Builder<'_>,
        positions: &[Position],
        work: &[usize],
        device: &Device,
        options: &StreamOptions,
    ) -> usize {
        let one = &positions[work[0]];
        let sum: u128 = work.iter().map(|&i| u128::from(positions[i].ns)).sum();
        let n = work.len() as u128;
        let mean = u64::try_from((sum + n / 2) / n).unwrap_or(u64::MAX).max(1);
        let mut samples: Vec<u64> =
            work.iter().flat_map(|&i| positions[i].samples.iter().map(|s| (*s).max(1))).collect();
        samples.sort_unstable();
        let point = Point {
            cus: device.cus(),
            duration_ns: mean,
            p05_ns: quantile(&samples, 5).map_or(mean, |v| v.min(mean)),
            p95_ns: quantile(&samples, 95).map_or(mean, |v| v.max(mean)),
            samples: u32::try_from(samples.len()).unwrap_or(u32::MAX),
        };
        let name = one_line(self.names.text(one.name));
        let name = if name.is_empty() { "unnamed".to_owned() } else { name };
        let op = op_of(&name);
        let Shape { grid, block, regs, smem_bytes } = one.shape;
        let next = builder.profile.kernels.len();
        builder.kernel(next.to_string(), |number| kernel::Kernel {
            id: format!("{}-b{}/{}/{number}", options.model, options.batch, op.name()),
            name,
            op,
            // The shape is unknown: assume that the kernel fills the device.
            grid: grid.unwrap_or([device.cus(), 1, 1]),
            block,
            regs,
            smem_bytes,
            blocks_per_cu: if grid.is_some() {
                device.topology.residency(one.shape.block, one.shape.regs, one.shape.smem_bytes)
            } else {
                1
            },
            flops: 0,
            dram_bytes: 0,
            curve: Curve::new(vec![point]).expect("one point of at least 1 CU and 1 ns"),
        })
    }

    fn report(
        &self,
        timeline: &Timeline,
        found: &Passes,
        typical: &Typical,
        positions: &[Position],
        timing: &Timing,
        options: &StreamOptions,
    ) -> Report {
        let mut report = Report::default();
        let n = positions.len();
        let busy: u64 = positions.iter().fold(0, |s, p| s.saturating_add(p.ns));
        let took = format!("{n} launches, {} ms of kernels in {} ms", ms(busy), ms(timing.took));
        report.notes.push(format!("passes: {}", found.how));
        report.notes.push(format!("taken: {}: {took}", typical.words));
        report.facts.push(("passes", found.how.clone()));
        report.facts.push(("taken", typical.words.clone()));
        report.facts.push(("took_ns", timing.took.to_string()));
        if let Some(differ) = &typical.differ {
            report.notes.push(format!("the passes differ: {differ}"));
            report.facts.push(("passes_differ", differ.clone()));
        }
        if timeline.overlaps * MANY > timeline.launches.len() {
            report.warnings.push(format!(
                "{} of {} kernels began while the one before on their stream ran: a stream runs one at a \
                 time, so the file may hold several recordings, whose times add up here",
                timeline.overlaps,
                timeline.launches.len()
            ));
        }
        if found.by_time {
            report.warnings.push(
                "no launch calls say what the host launched in its marks: the kernels that began \
                 meanwhile are taken, which may be those of other marks where the GPU ran behind"
                    .to_owned(),
            );
        }
        let inside: u64 = found.passes.iter().map(|p| busy_ns(timeline, p)).sum();
        let all = timeline.launches.iter().fold(0u64, |s, l| s.saturating_add(l.kernel.duration));
        if found.outside > 0 {
            let left = ms(all.saturating_sub(inside));
            let of = timeline.launches.len();
            report.notes.push(format!(
                "left out: {} of {of} launches, {left} of {} ms of kernels, in no pass",
                found.outside,
                ms(all)
            ));
        }
        if let Some(streams) = self.side_by_side(timeline, &found.passes[typical.timing]) {
            report.notes.push(format!("streams: {streams}"));
            if options.launch.is_none() && timing.alone > timing.took {
                let longer = (timing.alone - timing.took) * 100 / timing.took.max(1);
                let text = format!(
                    "kernels ran side by side and are one behind the other here: alone, the model takes {} ms, {longer} % \
                     longer than the recorded {} ms",
                    ms(timing.alone),
                    ms(timing.took)
                );
                if timing.alone > timing.took / 20 * 21 {
                    report.warnings.push(text);
                } else {
                    report.notes.push(text);
                }
            }
            report.facts.push(("streams", streams));
        }
        let unknown = positions.iter().filter(|p| p.shape.grid.is_none()).count();
        if unknown > 0 {
            let text = format!("{unknown} of {n} launches");
            report.notes.push(format!(
                "launch shape unknown for {text}: they are taken to fill the device"
            ));
            report.facts.push(("shape_unknown", text));
        }
        let host: u64 = timing.host.iter().fold(0, |s, h| s.saturating_add(*h));
        let host = match options.launch {
            Some(given) => format!("given: {given} per launch"),
            None if timeline.called => format!("from the launch calls: {} ms in all", ms(host)),
            None => {
                format!("from the gaps between kernels: {} ms in all; no launch calls", ms(host))
            }
        };
        report.notes.push(format!("host time {host}"));
        report.facts.push(("host_ns", host));
        let (copies, time) = timing.inside;
        if timing.input + timing.output > 0 || copies > 0 {
            report.notes.push(format!(
                "copies: {} bytes in, {} bytes out; {copies} between the kernels, {} ms, are part of \
                 the gaps",
                timing.input,
                timing.output,
                ms(time)
            ));
        }
        report
    }
}

#[derive(Default)]
struct Report {
    notes: Vec<String>,
    warnings: Vec<String>,
    facts: Vec<(&'static str, String)>,
}

pub(super) fn ms(ns: u64) -> String {
    format!("{:.3}", ns as f64 / 1e6)
}
