//! How wrong such numbers have been against published measurements, as docs/accuracy.md lists it.

use super::lab::Lab;

/// Mean absolute error of the throughput of 2 to 5 processes of one model that share an instance, %, over
/// ParvaGPU's three models: the smallest and the largest, from layer shapes and from measured latencies.
const SHARING: [(f64, f64); 2] = [(7.0, 21.5), (5.4, 8.6)];
/// Mean absolute error of linear layers of an 8B model in vLLM on two GPUs, %, from layer shapes.
const LAYERS: (f64, f64) = (14.1, 17.8);
/// The larger of the errors of the two 99th percentiles (TTFT, TPOT) of a serving engine whose steps were
/// measured, %.
const ENGINE: f64 = 3.9;

/// The known error of a tenant's numbers, in words.
pub(super) fn error(lab: &Lab, t: usize) -> String {
    let analytic = lab.sources[t].0 == "analytic";
    match (lab.generates(t), analytic) {
        (true, true) => format!(
            "published error of its linear layers {} to {} % (two GPUs); of sharing by engines there is none",
            LAYERS.0, LAYERS.1
        ),
        (true, false) => format!(
            "published error of an engine's p99 with measured steps up to {ENGINE} %; of sharing by engines \
             there is none"
        ),
        (false, _) => {
            let (low, high) = SHARING[usize::from(!analytic)];
            let from = if analytic { "layer shapes" } else { "measured latencies" };
            format!(
                "published error of throughput under sharing {low} to {high} % (three models, from {from})"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page is generated: when it changes, these constants must change, too.
    #[test]
    fn errors_are_those_of_the_page() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/accuracy.md");
        let Ok(page) = std::fs::read_to_string(page) else {
            return eprintln!("skipped: {page} is not there");
        };
        let column = |row: &str, n: usize| -> f64 {
            let cell = row.split('|').nth(n).unwrap_or_default();
            let number = cell.trim().trim_end_matches('%').trim().trim_start_matches('+');
            number.parse().unwrap_or_else(|e| panic!("{row}: {e}"))
        };
        let least_and_most = |what: &str, n: usize| {
            let rows = page.lines().filter(|l| l.starts_with('|') && l.contains(what));
            let all: Vec<f64> = rows.map(|row| column(row, n).abs()).collect();
            assert!(!all.is_empty(), "no row `{what}`");
            let (low, high) = (f64::MAX, 0.0);
            (all.iter().copied().fold(low, f64::min), all.iter().copied().fold(high, f64::max))
        };
        assert_eq!(least_and_most("from layer shapes, 2 to 5 processes", 6), SHARING[0]);
        assert_eq!(least_and_most("from own latencies, 2 to 5 processes", 6), SHARING[1]);
        assert_eq!(least_and_most("linear layers of Llama", 6), LAYERS);
        let p99 = ["p99 TTFT", "p99 TPOT"].map(|row| least_and_most(row, 4).1);
        assert_eq!(p99[0].max(p99[1]), ENGINE);
    }
}
