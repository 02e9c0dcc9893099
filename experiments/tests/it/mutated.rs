//! Mutated experiments in one process: an answer or an error, never a panic, never out of time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cotenant_traces::Rng;

use super::robust::{mutated, random};

/// The most events of a cell that is computed: a millisecond or two.
const EVENTS: f64 = 5_000.0;
/// Processor time that one experiment may take.
const LONGEST: Duration = Duration::from_secs(30);

fn cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// The experiments that ship: what people change. Not those on public traces: the same text would be refused on
/// one machine, and take a whole day of load on another that has the data.
fn shipped() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../experiments");
    let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
    let mut files: Vec<_> = files.filter(|f| f.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    let texts = files.iter().map(|f| std::fs::read_to_string(f).unwrap());
    texts.filter(|text| !text.contains("${COTENANT_PUBLIC_DATA}")).collect()
}

/// `COTENANT_FUZZ=1000000` makes as many experiments, `COTENANT_FUZZ_SECONDS=60` as many as a minute allows;
/// `COTENANT_FUZZ_SEED` chooses others.
#[test]
fn mutated_experiments_are_answers_not_panics() {
    let setting = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seconds = setting("COTENANT_FUZZ_SECONDS").map(Duration::from_secs);
    let most = if seconds.is_some() { u64::MAX } else { 300 };
    let most = setting("COTENANT_FUZZ").unwrap_or(most);
    let seed = setting("COTENANT_FUZZ_SEED").unwrap_or(1);
    let shipped = shipped();
    let mut ends = BTreeMap::<String, u64>::new();
    let begun = Instant::now();
    let mut turns = 0;
    for turn in 0..most {
        if seconds.is_some_and(|s| begun.elapsed() > s) {
            break;
        }
        turns = turn + 1;
        let mut rng = Rng::for_names(seed.wrapping_add(turn), &["mutated"]);
        // Nearly all are random ones, which are short; seven of eight are mutated, up to four times.
        let mut text = if rng.below(32) == 0 {
            shipped[rng.below(shipped.len() as u64) as usize].clone()
        } else {
            random(&mut rng)
        };
        if rng.below(8) > 0 {
            for _ in 0..=rng.below(4) {
                text = mutated(&text, &mut rng);
            }
        }
        let before = cpu_time();
        let answer = std::panic::catch_unwind(|| cotenant::inspect(&text, EVENTS));
        let Ok(answer) = answer else { panic!("turn {turn} of seed {seed} panicked:\n{text}") };
        let took = cpu_time().saturating_sub(before);
        assert!(took < LONGEST, "turn {turn} of seed {seed}: {took:?}\n{text}");
        let end = match &answer {
            Ok(said) => said.split_once(": ").map_or("", |(_, status)| status),
            Err(_) => "refused",
        };
        assert!(!end.starts_with("internal-error"), "turn {turn} of seed {seed}: {end}\n{text}");
        let end = end.split(':').next().unwrap_or_default().chars().take(40).collect();
        *ends.entry(end).or_default() += 1;
        if turn > 0 && turn.is_multiple_of(100_000) {
            eprintln!("{turn} experiments, {:?}", begun.elapsed());
        }
    }
    let answered = ends.iter().filter(|(end, _)| *end != "refused").map(|(_, n)| n).sum::<u64>();
    eprintln!("{turns} experiments of seed {seed}, {:?}: {ends:?}", begun.elapsed());
    assert!(
        turns < 100 || answered * 10 > turns,
        "most are refused before anything is computed: {ends:?}"
    );
}
