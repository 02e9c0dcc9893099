//! The answer on one screen.

use super::answer::{Answer, Missed};
use super::goal::ATTAINED;
use super::lab::Lab;
use super::row::{FEW, Interval, Row, Served};
use crate::text::{align, rounded};

/// A number with its interval.
fn with_interval(value: Option<Interval>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Interval { mean, half: None }) => rounded(Some(mean)),
        Some(Interval { mean, half: Some(half) }) => {
            format!("{} ±{}", rounded(Some(mean)), rounded(Some(half)))
        }
    }
}

fn factor(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(h) if h >= 16.0 => "≥16".to_owned(),
        Some(h) => format!("{h:.2}"),
    }
}

/// The worst inflation of a row, the tenant that suffers it, and the neighbour that causes it.
pub(crate) fn worst(row: &Row) -> Option<(f64, String)> {
    let all = row.tenants.iter().filter_map(|t| Some((t, t.inflation?)));
    let (t, factor) = all.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let by = t.inflated_by.as_ref().map_or_else(String::new, |who| format!(" by {who}"));
    Some((factor, format!("{}{by}", t.tenant)))
}

/// The same in words, or `none` if there is no inflation.
pub(crate) fn worst_words(row: &Row, none: &str) -> String {
    worst(row).map_or_else(|| none.to_owned(), |(factor, whose)| format!("{factor:.2} {whose}"))
}

/// Facts about a row besides its settings.
pub(crate) fn remarks(r: &Row) -> String {
    let needs = r.needs.map_or_else(String::new, |n| format!(" [needs {n}]"));
    let screened = match r.settled {
        true => String::new(),
        false => format!(" [first screen: {}]", crate::text::count(r.seeds, "run")),
    };
    needs + &screened
}

/// The text that `advise` prints.
pub(crate) fn advise(a: &Answer, price: bool) -> String {
    let device = &a.lab.setup.device;
    let mut text = format!("{} on {}\n\n", a.mix, device.title);
    if let Some(c) = a.choice {
        let row = &a.rows[c];
        text += &format!("{}: {}\n  because it is {}.\n", bold(row), row.settings, a.why);
        if let Some(r) = a.runner_up {
            text += &format!("  Runner-up: {} ({}).\n", a.rows[r].way, a.rows[r].settings);
        }
        text += &format!("  Flips: {}.\n", a.flips);
    } else {
        text += "Nothing deploys for this mix on this device.\n";
    }
    for m in &a.out_of_reach {
        text += &format!("  Out of reach: {} {}.\n", m.tenant, out_of_reach(m));
    }
    for change in &a.changes {
        text += &format!("  Change: {change}.\n");
    }
    text += &format!("\n{}", rows(&a.rows, price));
    if let Some(c) = a.choice {
        text += &format!("\n{}", tenants(&a.rows[c], &a.lab));
    }
    text += &format!("\n{}", sources(a));
    text
}

/// By how much a goal is missed.
pub(crate) fn out_of_reach(m: &Missed) -> String {
    let few = match m.requests < FEW {
        true => format!(
            "; {} are few to judge it by",
            crate::text::count(m.requests as usize, "request")
        ),
        false => String::new(),
    };
    format!("{}{few}", how_far(m))
}

fn how_far(m: &Missed) -> String {
    let late = m.attained.map_or_else(String::new, |a| {
        format!(" ({:.1} % of its requests are within it)", a * 100.0)
    });
    let goal = &m.goal;
    match (m.p99_ms, m.goal_ms, m.ttft_p99_ms) {
        // Late requests have not ended yet.
        _ if m.overloaded => {
            format!("is not kept up with: its queue grows past its goal of {goal}{late}")
        }
        (Some(p), Some(ms), _) if p > ms => {
            format!(
                "has a p99 of {} ms: {} times its goal of {goal}",
                rounded(Some(p)),
                rounded(Some(p / ms))
            )
        }
        (_, None, Some(first)) => format!(
            "has p99 of {} ms to the first token and {} ms per token, with a goal of {goal}{late}",
            rounded(Some(first)),
            rounded(m.tpot_p99_ms)
        ),
        (None, None, None) | (None, Some(_), _) => {
            format!("is not served at all, with a goal of {goal}")
        }
        _ => format!("misses its goal of {goal}{late}"),
    }
}

fn bold(row: &Row) -> String {
    if row.gpus > 1 && !row.way.contains("GPU") {
        format!("{} on {} GPUs", row.way, row.gpus)
    } else {
        row.way.clone()
    }
}

/// Headings of the columns: a short form for terminals, and a long one.
pub(crate) fn headings(price: bool) -> Vec<[&'static str; 2]> {
    let all = [
        ["way"; 2],
        ["GPUs"; 2],
        ["goals", "goals met"],
        ["worst p99/goal", "worst p99 / goal"],
        ["goodput/s"; 2],
        ["headroom"; 2],
        ["inflation", "worst inflation"],
        ["W"; 2],
        ["kWh/M", "kWh per million"],
        ["price/M", "price per million"],
        ["change s"; 2],
        ["settings"; 2],
    ];
    all.into_iter().filter(|[short, _]| price || *short != "price/M").collect()
}

/// A line per way of sharing.
pub(crate) fn rows(rows: &[Row], price: bool) -> String {
    let header: Vec<&str> = headings(price).into_iter().map(|[short, _]| short).collect();
    let mut lines = vec![];
    let mut cannot = String::new();
    let mut open = vec![];
    for r in rows {
        if let Some(why) = &r.impossible {
            cannot += &format!("{}: {why}\n", r.way);
            continue;
        }
        let ratio = r.score.filter(|_| r.goals > 0).map(|s| s.ratio);
        let inflation = worst_words(r, "-");
        let mut line = vec![
            r.way.clone(),
            r.gpus.to_string(),
            format!("{}/{}", r.goals_met, r.goals),
            match ratio {
                Some(x) if x > 100.0 => ">100".to_owned(),
                Some(x) => format!("{x:.2}"),
                None => "-".to_owned(),
            },
            rounded(Some(r.goodput_rps)),
            factor(r.headroom),
            inflation,
            format!("{:.0}", r.watts),
            rounded(r.kwh_per_million),
        ];
        if price {
            line.push(rounded(r.price_per_million));
        }
        if !r.settled {
            open.push(format!("{} ({})", r.way, crate::text::count(r.seeds, "run")));
        }
        line.extend([format!("{:.1}", r.change_s), format!("{}{}", r.settings, remarks(r))]);
        lines.push(line);
    }
    if !open.is_empty() {
        cannot += &format!(
            "first screens, not settled within the budget, so without headroom and inflation: {}; a larger \
             --budget settles them\n",
            open.join(", ")
        );
    }
    let undecided: Vec<String> = rows.iter().filter_map(undecided).collect();
    if !undecided.is_empty() {
        cannot += &format!(
            "not decided within the budget, since p99 over goal is about 1 or few requests came: {}\n",
            undecided.join("; ")
        );
    }
    align(&header, &lines) + &cannot
}

/// The tenants whose goals the runs of a row leave undecided.
fn undecided(row: &Row) -> Option<String> {
    let open = row.tenants.iter().filter(|t| t.undecided && row.settled);
    let open: Vec<&str> = open.map(|t| t.tenant.as_str()).collect();
    (!open.is_empty()).then(|| format!("{} ({})", row.way, open.join(", ")))
}

/// A line per tenant of one row.
pub(crate) fn tenants(row: &Row, lab: &Lab) -> String {
    let header = [
        "tenant",
        "GPU",
        "p50 ms",
        "p99 ms",
        "goal ms",
        "within",
        "req/s",
        "inflation",
        "workers",
        "batch",
        "weights MiB",
        "activations",
        "contexts",
    ];
    let cache = row.tenants.iter().any(|t| t.step_tokens.is_some());
    let mut header = header.to_vec();
    if cache {
        header.push("caches");
    }
    let line = |t: &Served| {
        let mut line = vec![
            t.tenant.clone(),
            t.gpu.to_string(),
            with_interval(t.p50_ms),
            with_interval(t.p99_ms),
            rounded(t.goal_ms),
            t.attained.map_or_else(|| "-".to_owned(), |x| format!("{:.2} %", x * 100.0)),
            rounded(Some(t.rps)),
            t.inflation.map_or_else(|| "-".to_owned(), |f| format!("{f:.2}")),
            t.workers.to_string(),
            t.batch_max.to_string(),
            format!("{:.0}", t.weights_mib),
            format!("{:.0}", t.activations_mib),
            format!("{:.0}", t.context_mib),
        ];
        if cache {
            line.push(format!("{:.0}", t.cache_mib));
        }
        line
    };
    let lines: Vec<Vec<String>> = row.tenants.iter().map(line).collect();
    let sum: f64 = row
        .tenants
        .iter()
        .map(|t| t.weights_mib + t.activations_mib + t.context_mib + t.cache_mib)
        .sum();
    let capacity = lab.setup.device.memory.capacity.0 as f64 / f64::from(1 << 20);
    let few = row.tenants.iter().filter(|t| t.met.is_some() && t.requests < FEW);
    let few: Vec<String> = few.map(|t| format!("{} {}", t.tenant, t.requests)).collect();
    let few = match few.as_slice() {
        [] => String::new(),
        some => format!(
            "few requests to judge a goal by: {}; a larger --budget simulates longer\n",
            some.join(", ")
        ),
    };
    let memory = capacity * row.gpus as f64;
    let generating: Vec<&Served> = row.tenants.iter().filter(|t| t.step_tokens.is_some()).collect();
    let engines = if generating.is_empty() { String::new() } else { engines(&generating) };
    format!("{}{engines}{few}memory: {sum:.0} of {memory:.0} MiB\n", align(&header, &lines))
}

/// A line per tenant that generates tokens.
fn engines(served: &[&Served]) -> String {
    let header = [
        "engine",
        "GPU",
        "ttft p99 ms",
        "goal ms",
        "tpot p99 ms",
        "goal ms",
        "sequences",
        "step tokens",
    ];
    let line = |t: &&Served| {
        vec![
            t.tenant.clone(),
            t.gpu.to_string(),
            with_interval(t.ttft_p99_ms),
            rounded(t.goal_ttft_ms),
            with_interval(t.tpot_p99_ms),
            rounded(t.goal_tpot_ms),
            t.batch_max.to_string(),
            t.step_tokens.map_or_else(String::new, |n| n.to_string()),
        ]
    };
    align(&header, &served.iter().map(line).collect::<Vec<_>>())
}

/// Where the numbers come from.
pub(crate) fn sources(a: &Answer) -> String {
    let mut text = String::new();
    for t in &a.tenants {
        let (name, words, error) = (&t.name, &t.source_words, &t.published_error);
        text += &format!("{name} ({}): {words}; {error}\n", t.source);
    }
    let goal = ATTAINED * 100.0;
    text + &format!(
        "A goal is met if {goal} % of the requests are; intervals are of 95 % over seeds. How wrong the \
         simulator is on other people's measurements: docs/accuracy.md.\n"
    )
}
