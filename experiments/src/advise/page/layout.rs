//! The GPUs as bars: which tenant has which part of each.

use cotenant_deploy::{Gpu, Sharing};
use maud::{Markup, html};

use crate::advise::lab::Lab;
use crate::advise::row::Row;

/// Style of the bars; the colours are those of the figures.
pub(super) const STYLE: &str = "
.gpu { margin: 0 0 1rem; }
.gpu p { margin: 0 0 .3rem; }
.bar { display: flex; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; background: var(--card); }
.bar + .bar { margin-top: .25rem; }
.part { min-width: 0; padding: .35rem .5rem; font-size: .85rem; line-height: 1.3; overflow-wrap: anywhere; border-left: 4px solid; }
.part small { display: block; color: var(--faint); }
.scroll thead th { white-space: normal; }
.scroll td.wrap { white-space: normal; min-width: 7rem; }
.scroll td.wrap:last-child { min-width: 15rem; }
.part.free { border-left-color: transparent; color: var(--faint); }
";

const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// A part of a bar.
struct Part {
    cus: f64,
    who: String,
    what: String,
    colour: Option<usize>,
}

/// Every GPU of a row.
pub(super) fn drawn(row: &Row, lab: &Lab) -> Markup {
    html! {
        @for (index, gpu) in row.plan.iter().enumerate() {
            div.gpu {
                p { "GPU " (index) ": " (gpu.sharing.words_on(&lab.setup.device)) }
                @for bar in bars(gpu, lab) {
                    div.bar {
                        @for part in &bar {
                            div.part.free[part.colour.is_none()] style=(style(part)) {
                                (part.who) small { (part.what) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn style(part: &Part) -> String {
    let colour = part.colour.map(|i| COLOURS[i % COLOURS.len()]);
    let colour = colour.map_or_else(String::new, |c| format!("; border-left-color: {c}"));
    format!("flex: {:.2} 1 0{colour}", part.cus.max(0.01))
}

/// One bar if every tenant has a place of its own, one per tenant if they overlap.
fn bars(gpu: &Gpu, lab: &Lab) -> Vec<Vec<Part>> {
    let device = &lab.setup.device;
    let all = f64::from(device.cus());
    let unit = if device.is_amd() { "CUs" } else { "SMs" };
    let name = |i: usize| gpu.tenants[i].name.clone();
    let tenants = 0..gpu.tenants.len();
    let names = |who: &[usize]| who.iter().map(|&i| name(i)).collect::<Vec<_>>().join(", ");
    let with_rest = |mut parts: Vec<Part>, why: &str| {
        let left = all - parts.iter().map(|p| p.cus).sum::<f64>();
        if left >= 1.0 {
            let what = format!("{left:.0} {unit} {why}");
            parts.push(Part { cus: left, who: String::new(), what, colour: None });
        }
        parts
    };
    match &gpu.sharing {
        Sharing::Static { chunks } => {
            let each = device.mps.map_or(1, |m| m.chunk_cus);
            let part = |i: usize| {
                let cus = chunks[i] * each;
                Part {
                    cus: cus.into(),
                    who: name(i),
                    what: format!("{cus} {unit}"),
                    colour: Some(i),
                }
            };
            vec![with_rest(tenants.map(part).collect(), "unused")]
        }
        Sharing::Mig { instances, place, percent } => {
            let part = |(slot, instance): (usize, &String)| {
                let table = device.mig.as_ref();
                let profile = table.and_then(|t| t.profiles.iter().find(|p| p.name == *instance));
                let cus = profile.map_or(0, |p| p.cus);
                let here: Vec<usize> =
                    tenants.clone().filter(|&i| place.get(i) == Some(&slot)).collect();
                let shares: Vec<String> = here
                    .iter()
                    .filter(|&&i| percent[i] < 100)
                    .map(|&i| format!(", {} at most {} %", name(i), percent[i]))
                    .collect();
                let what = format!("{instance}, {cus} {unit}{}", shares.concat());
                Part { cus: cus.into(), who: names(&here), what, colour: Some(slot) }
            };
            vec![with_rest(instances.iter().enumerate().map(part).collect(), "in no instance")]
        }
        Sharing::Mps { percent } if percent.iter().any(|&p| p < 100) => {
            let bar = |i: usize| {
                let cus = f64::from(device.mps_cus(f64::from(percent[i])));
                let what = format!("at most {cus:.0} {unit} ({} %)", percent[i]);
                let part = Part { cus, who: name(i), what, colour: Some(i) };
                with_rest(vec![part], "of others")
            };
            tenants.map(bar).collect()
        }
        sharing => {
            let how = match sharing {
                Sharing::TimeSlicing { .. } => "in turns",
                _ => "side by side",
            };
            let who: Vec<usize> = tenants.collect();
            let what = format!("{all:.0} {unit}, {how}");
            vec![vec![Part { cus: all, who: names(&who), what, colour: Some(0) }]]
        }
    }
}
