//! Mutated inputs for every reader: an answer or an error, never a panic, in bounded time.
//!
//! A plain loop: inputs that give a new kind of answer are kept and mutated further. The normal tests
//! make a few hundred turns per reader; `COTENANT_FUZZ=10000000` makes as many as it says over all
//! readers. The seed is printed and can be given in `COTENANT_FUZZ_SEED`; `COTENANT_FUZZ_READER` is a part
//! of the names of the readers that are tried, all of them where it is not set.

pub(super) mod readers;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cotenant_profiles::import::{self, Recording, Tool};

use super::{device, options};
use readers::{SUM_CSV, readers, stream};

/// What the loop draws from.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

const TOKENS: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"-1",
    b"1e308",
    b"18446744073709551615",
    b"9223372036854775807",
    b"inf",
    b"NaN",
    b"null",
    b"\n",
    b"\xff",
    b"\xc3",
    b"\0",
    b"%",
    b".0",
    b"\"ph\":\"X\"",
    b"4294967295",
];

fn mutate(seed: &[u8], other: &[u8], r: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=r.below(4) {
        let (n, at) = (bytes.len(), r.below(bytes.len() + 1));
        let length = r.below(40).min(n - at);
        match r.below(7) {
            0 if at < n => bytes[at] = r.next() as u8,
            1 => drop(bytes.drain(at..at + length)),
            2 => drop(bytes.splice(at..at, TOKENS[r.below(TOKENS.len())].iter().copied())),
            3 => {
                let part = bytes[at..at + length].to_vec();
                let to = r.below(n + 1);
                drop(bytes.splice(to..to, part));
            }
            4 => {
                let from = r.below(other.len() + 1);
                let part = other[from..(from + 60).min(other.len())].to_vec();
                drop(bytes.splice(at..at + length, part));
            }
            5 => {
                // A digit becomes another, so that numbers stay numbers.
                if let Some(i) = bytes[at..].iter().position(u8::is_ascii_digit) {
                    bytes[at + i] = b'0' + (r.next() % 10) as u8;
                }
            }
            _ => bytes.truncate(at.max(n / 2)),
        }
    }
    bytes.truncate(8 << 10);
    bytes
}

/// The kind of an answer: an error without its numbers and texts, or how much was used.
fn kind(answer: Result<String, String>) -> String {
    answer.unwrap_or_else(|e| {
        let words = e.split('`').step_by(2).collect::<String>();
        words.chars().filter(|c| !c.is_ascii_digit()).take(120).collect()
    })
}

/// Found by mutations: the sum of instances and half of the passes was too large for a number, and many
/// rows of many launches each took memory without an end.
#[test]
fn instances_beyond_reason_are_an_answer() {
    let rows = |instances: &str, n: usize| {
        let head = SUM_CSV.lines().next().unwrap();
        let columns = head.split(',').count();
        let at = head.split(',').position(|c| c.contains("Instances")).unwrap();
        let one = (0..columns).map(|c| if c == at { instances } else { "7000" });
        let row = one.collect::<Vec<_>>().join(",");
        format!("{head}\n{}", format!("{row}\n").repeat(n))
    };
    let once = import::StreamOptions { passes: Some(1), ..options() };
    for text in [rows("18446744073709551615", 1), rows("100000", 1000)] {
        let read = Recording::stream(Tool::Nsys, "f", text.as_bytes()).unwrap();
        let why = read.model(&device(), &once).unwrap_err().to_string();
        assert!(why.contains("give --passes N"), "{why}");
    }
    assert!(stream(Tool::Nsys, rows("18446744073709551615", 1).as_bytes()).is_ok());
}

/// The time that one input may take.
const LONGEST: Duration = Duration::from_secs(20);

#[test]
fn mutated_inputs_are_answers_not_panics() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let readers = readers();
    let turns = number("COTENANT_FUZZ").map_or(200, |n| n / readers.len() as u64).max(1);
    let seed = number("COTENANT_FUZZ_SEED").unwrap_or(1);
    eprintln!("seed {seed}, {turns} turns per reader");
    let only = std::env::var("COTENANT_FUZZ_READER").unwrap_or_default();
    let chosen = readers.into_iter().enumerate().filter(|(_, (name, ..))| name.contains(&only));
    for (which, (name, first, read)) in chosen {
        assert_eq!(read(&first).err(), None, "{name}: its first input is sound");
        let mut r = Random((seed ^ (which as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (mut corpus, mut kinds) = (vec![first], BTreeSet::new());
        // Bytes of a database lie at places that others name: a mutation must not always cut it.
        let database = [&b"SQLite"[..], b"PAR1"].iter().any(|m| corpus[0].starts_with(m));
        let begun = Instant::now();
        for turn in 0..turns {
            let (a, b) = (r.below(corpus.len()), r.below(corpus.len()));
            let bytes = if database {
                let mut bytes = corpus[a].clone();
                for _ in 0..=r.below(6) {
                    let at = r.below(bytes.len());
                    bytes[at] = r.next() as u8;
                }
                bytes
            } else {
                mutate(&corpus[a], &corpus[b], &mut r)
            };
            if turn > 0 && turn.is_multiple_of(1_000_000) {
                eprintln!("{name}: {turn} turns, {:?}", begun.elapsed());
            }
            let one = Instant::now();
            let answer = kind(read(&bytes));
            let mut took = one.elapsed();
            if took > LONGEST {
                // On a busy machine the loop may have had to wait: once more.
                let again = Instant::now();
                let _ = read(&bytes);
                took = took.min(again.elapsed());
            }
            assert!(took < LONGEST, "{name}, seed {seed}, turn {turn}: {took:?}");
            if kinds.insert(answer) && corpus.len() < 512 {
                corpus.push(bytes);
            }
        }
        eprintln!("{name}: {turns} turns, {} kinds of answers, {:?}", kinds.len(), begun.elapsed());
    }
}
