//! What is computed after the search: headroom, the cost of neighbours, latency against load.

use super::evaluate::{For, Run};
use super::fleet::{self, Member};
use super::goal::Got;
use super::lab::{Candidate, How, Lab};
use super::search::{SEEDS, Search, Tried, keeps, score};
use super::space::Group;

/// Approximate number of runs for the headroom of a candidate, each half as long as a long one; the second
/// number is for every further GPU, whose headroom matters only if it is less.
const HEADROOM_RUNS: [f64; 2] = [8.0, 2.0];
/// The largest factor at which headroom is looked for, and the one that is tried first.
pub(super) const MOST_LOAD: f64 = 16.0;
const FIRST_LOAD: f64 = 4.0;
/// Differences in load below this do not matter.
const LEAST_LOAD: f64 = 0.02;
/// The search for headroom ends when the lowest failing load is at most this factor above the highest passing
/// one.
const NEAR: f64 = 1.1;
/// Failed guesses before the interval is halved.
const GUESSES: usize = 3;

/// The result of a run at some load: whether every goal is kept, the worst ratio of p99 and goal, and the
/// smallest share of a tenant's requests that was answered.
struct Probe {
    load: f64,
    kept: bool,
    ratio: f64,
    answered: f64,
}

impl Search<'_> {
    /// The largest factor by which the load may grow before a goal breaks, below 1 if one is broken already;
    /// `None` without goals. Accurate to a tenth, at most `most`.
    pub(crate) fn headroom(&self, t: &Tried, most: f64) -> Option<f64> {
        t.c.tenants.iter().find(|&&i| self.lab.goal(i).is_some())?;
        let round = |load: f64| Some((load * 100.0).round() / 100.0);
        let mut low = Probe { load: 0.0, kept: true, ratio: 0.0, answered: 1.0 };
        // At the mix's own load, all of its runs count.
        let mut high = self.said(t, &t.samples(), 1.0);
        let known = if high.kept { [FIRST_LOAD.min(most), most] } else { [most.min(1.0); 2] };
        for load in known {
            // Upwards from a load that passes, downwards from one that fails.
            if load == high.load || high.kept != (load > high.load) {
                continue;
            }
            let next = self.probe(t, load);
            match (high.kept, next.kept) {
                (true, _) => (low, high) = (high, next),
                (false, true) => return round(load),
                (false, false) => high = next,
            }
        }
        if high.kept {
            return round(high.load);
        }
        // After a failure, guess; after a pass, go upwards in growing steps.
        let (mut up, mut failed) = (0.0, 0);
        while high.load > low.load * NEAR && high.load - low.load > LEAST_LOAD {
            let middle =
                if low.load > 0.0 { (low.load * high.load).sqrt() } else { high.load / 2.0 };
            let next = match (low.load * up, guess(&low, &high)) {
                (next, _) if next > low.load && next < high.load => next,
                (_, Some(next)) if up == 0.0 && failed < GUESSES => next,
                _ => middle,
            };
            let next = self.probe(t, next);
            if next.kept {
                up = if up > 0.0 { up * up } else { NEAR };
                low = next;
            } else {
                (up, failed) = (0.0, failed + 1);
                high = next;
            }
        }
        round(low.load)
    }

    fn probe(&self, t: &Tried, load: f64) -> Probe {
        match t.run(self.lab, self.loaded(&t.c, load)) {
            Ok(run) => self.said(t, &[&run], load),
            Err(_) => Probe { load, kept: false, ratio: f64::INFINITY, answered: 1.0 },
        }
    }

    fn said(&self, t: &Tried, runs: &[&Run], load: f64) -> Probe {
        let (lab, tenants) = (self.lab, &t.c.tenants);
        let goals = (0..tenants.len()).filter(|&i| lab.goal(tenants[i]).is_some());
        let answered = goals.flat_map(|i| runs.iter().map(move |r| r.got[i].answered));
        Probe {
            load,
            kept: keeps(lab, tenants, runs),
            ratio: score(lab, tenants, runs).ratio,
            answered: answered.fold(1.0, f64::min),
        }
    }

    fn loaded(&self, c: &Candidate, load: f64) -> For {
        For { seed: self.seed, duration: self.lengths.loaded(self.lab, c, load), load }
    }

    /// The worst ratio of p99 and goal at `load` times the rates.
    pub(crate) fn ratio_at(&self, t: &Tried, load: f64) -> f64 {
        let run = t.run(self.lab, self.loaded(&t.c, load));
        run.map_or(f64::INFINITY, |run| score(self.lab, &t.c.tenants, &[&run]).ratio)
    }

    /// A tenant alone on the whole GPU with the same settings and requests.
    pub(crate) fn alone(&self, c: &Candidate, i: usize) -> Option<Got> {
        let percent = vec![100];
        let one = Candidate {
            tenants: vec![c.tenants[i]],
            requests: vec![c.requests[i]],
            how: How::Deploy(match self.lab.setup.device.mps {
                Some(_) => cotenant_deploy::Sharing::Mps { percent },
                None => cotenant_deploy::Sharing::TURNS,
            }),
            batch: vec![c.batch[i]],
            tokens: vec![c.tokens[i]],
            memory: vec![None],
            timeout: vec![c.timeout[i]],
            workers: vec![c.workers[i]],
        };
        // As long as the runs with its neighbours.
        let how = For { load: 1.0, ..self.long(c, 0) };
        let run = Tried::new(one).run(self.lab, how).ok()?;
        run.got.first().copied()
    }

    /// The tenant, among those on the same GPU or instance, that costs `i` most: the one next to which `i`,
    /// with no other company, has the longest p99. `None` if `i` is alone there.
    pub(crate) fn by_whom(&self, c: &Candidate, i: usize) -> Option<usize> {
        let company = (0..c.tenants.len()).filter(|&j| j != i && Lab::together(c, i, j));
        let company: Vec<usize> = company.collect();
        if let [only] = company[..] {
            return Some(only);
        }
        let goal = self.lab.goal(c.tenants[i]);
        let beside = |&j: &usize| {
            let (a, b) = (i.min(j), i.max(j));
            let pair = Group {
                tenants: vec![c.tenants[a], c.tenants[b]],
                requests: vec![c.requests[a], c.requests[b]],
            };
            let run = Tried::new(fleet::without(c, &pair)?).run(self.lab, self.short(c)).ok()?;
            let got = run.got[usize::from(i == b)];
            let p99 = got.p99_ms.or_else(|| goal.map(|goal| goal.ratio(&got)))?;
            Some((p99, j))
        };
        let all = company.iter().filter_map(beside);
        all.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, j)| j)
    }

    /// Approximate events of one more run on every GPU.
    pub(crate) fn to_lengthen(&self, members: &[Member]) -> f64 {
        members.iter().map(|m| m.tried.long_events(self.lab, &self.lengths)).sum()
    }

    /// Approximate events needed to settle the GPUs of a row.
    pub(crate) fn to_settle<'t>(&self, row: impl Iterator<Item = &'t Tried>) -> f64 {
        let mut first = true;
        let mut one = |t: &Tried| {
            let seeds = SEEDS.saturating_sub(t.long.len()) as f64;
            let goals = t.c.tenants.iter().any(|&i| self.lab.goal(i).is_some());
            let headroom = if goals { HEADROOM_RUNS[usize::from(!first)] / 2.0 } else { 0.0 };
            first &= !goals;
            // Runs of its tenants alone have as many events as one run of all together.
            let alone = if t.c.tenants.len() > 1 { 1.0 } else { 0.0 };
            (seeds + headroom + alone) * t.long_events(self.lab, &self.lengths)
        };
        row.map(&mut one).sum()
    }
}

/// Estimates the largest load that passes, between one that passes and one that fails.
fn guess(low: &Probe, high: &Probe) -> Option<f64> {
    let guess = if high.answered < FULLY {
        // The answered part of an overload.
        high.load * high.answered
    } else {
        let (above, below) = (high.ratio - 1.0, 1.0 - low.ratio);
        (low.load * above + high.load * below) / (above + below)
    };
    // A little less, so that the next step up fails.
    let guess = guess / NEAR.sqrt();
    let inside = low.load * NEAR.sqrt()..high.load / NEAR.sqrt();
    inside.contains(&guess).then_some(guess)
}

/// Without overload a larger share than this is answered: all but the requests still waiting at the end.
const FULLY: f64 = 0.95;
