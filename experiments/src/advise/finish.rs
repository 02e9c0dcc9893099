//! What is looked for behind the search: headroom, what neighbours cost, latency against load.

use super::evaluate::For;
use super::fleet::{self, Member};
use super::goal::Got;
use super::lab::{Candidate, How, Lab};
use super::search::{SEEDS, Search, Tried, keeps, score};
use super::space::Group;

/// Runs that the headroom of a candidate takes, about, each half as long as a long one.
const HEADROOM_RUNS: f64 = 8.0;

impl Search<'_> {
    /// The largest factor by which the load may grow before a goal breaks, below 1 where one is broken;
    /// `None` without goals. To a tenth, at most 16.
    pub(crate) fn headroom(&self, t: &Tried) -> Option<f64> {
        t.c.tenants.iter().find(|&&i| self.lab.goal(i).is_some())?;
        // At the load as it is, all of its runs have the word.
        let kept = keeps(self.lab, &t.c.tenants, &t.samples());
        let met = |load: f64| {
            let Ok(run) = t.run(self.lab, self.loaded(&t.c, load)) else { return false };
            keeps(self.lab, &t.c.tenants, &[&run])
        };
        let (mut low, mut high): (f64, f64) = if kept { (1.0, 16.0) } else { (0.0, 1.0) };
        while low >= 1.0 && low * 2.0 <= 16.0 && met(low * 2.0) {
            low *= 2.0;
        }
        high = if low >= 1.0 { high.min(low * 2.0) } else { high };
        if low >= 16.0 {
            return Some(16.0);
        }
        while high - low > 0.1 * high.max(0.2) {
            let middle = f64::midpoint(low, high);
            if met(middle) { low = middle } else { high = middle }
        }
        Some((low * 100.0).round() / 100.0)
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
        // As long as its neighbours are looked at.
        let how = For { load: 1.0, ..self.long(c, 0) };
        let run = Tried::new(one).run(self.lab, how).ok()?;
        run.got.first().copied()
    }

    /// Of the tenants that share a GPU or instance with `i`, the one that costs it most: beside whom alone its
    /// p99 is longest; none where it has no company.
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

    /// Events of another run of every GPU, about.
    pub(crate) fn to_lengthen(&self, members: &[Member]) -> f64 {
        members.iter().map(|m| m.tried.long_events(self.lab, &self.lengths)).sum()
    }

    /// Events that it takes to say everything of a candidate, about.
    pub(crate) fn to_settle(&self, t: &Tried) -> f64 {
        let seeds = SEEDS.saturating_sub(t.long.len()) as f64;
        // Its tenants alone have as many events as all together.
        (seeds + HEADROOM_RUNS / 2.0 + 1.0) * t.long_events(self.lab, &self.lengths)
    }
}
