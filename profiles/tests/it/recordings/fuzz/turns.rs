//! The loop of mutations, for the readers of recordings and of traces.
//!
//! A plain loop: inputs that give a new kind of answer are kept and mutated further. The normal tests
//! make a few hundred turns per reader; `COTENANT_FUZZ=10000000` makes as many for each.
//! `COTENANT_FUZZ_SECONDS` is the time of all readers together instead of a number of turns.
//! The seed is printed and can be given in `COTENANT_FUZZ_SEED`; `COTENANT_FUZZ_READER` names the readers
//! that are tried, all of them where it is not set. The loop begins with the reader's first input and with
//! those in `fuzz/seeds/READER`; with `COTENANT_FUZZ_KEEP` it writes some of what it kept there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A reader: the kind of its answer, or an error.
pub(crate) type Reader = fn(&[u8]) -> Result<String, String>;

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

/// `most`: bytes that an input may have.
fn mutate(seed: &[u8], other: &[u8], most: usize, r: &mut Random) -> Vec<u8> {
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
    bytes.truncate(most);
    bytes
}

/// The kind of an answer: an error without its numbers and texts, or how much was used.
fn kind(answer: Result<String, String>) -> String {
    answer.unwrap_or_else(|e| {
        let words = e.split('`').step_by(2).collect::<String>();
        words.chars().filter(|c| !c.is_ascii_digit()).take(120).collect()
    })
}

/// The time that one input may take.
const LONGEST: Duration = Duration::from_secs(20);
/// Inputs of a reader that are written for the next loop, and bytes of them all.
const WRITTEN: (usize, usize) = (16, 24 << 10);
/// Kinds of answers that are told apart: beyond it the loop would spend its time on them.
const KINDS: usize = 20_000;

/// Mutates the first input of each reader, `often` times where nothing else is asked for. Nothing may
/// panic, nor take longer than [`LONGEST`].
pub(crate) fn run(readers: Vec<(&'static str, Vec<u8>, Reader)>, often: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let turns = number("COTENANT_FUZZ").unwrap_or(often).max(1);
    let seed = number("COTENANT_FUZZ_SEED").unwrap_or(1);
    eprintln!("seed {seed}, {turns} turns per reader");
    let only = std::env::var("COTENANT_FUZZ_READER").unwrap_or_default();
    let only: Vec<&str> = only.split(',').filter(|n| !n.is_empty()).collect();
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    let n = readers.iter().filter(|(name, ..)| wanted(name)).count();
    let seconds = number("COTENANT_FUZZ_SECONDS").map(|s| Duration::from_secs(s) / n.max(1) as u32);
    let all = readers.into_iter().enumerate();
    for (which, (name, first, read)) in all {
        if !wanted(name) {
            continue;
        }
        assert_eq!(read(&first).err(), None, "{name}: its first input is sound");
        let mut r = Random((seed ^ (which as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Longer ones take longer and say little more.
        let most = (2 * first.len()).max(1 << 10);
        let (mut corpus, mut kinds) = (vec![first], BTreeSet::new());
        corpus.extend(seeds(name));
        let mut done = 0;
        // Bytes of a database lie at places that others name: a mutation must not always cut it.
        let database = [&b"SQLite"[..], b"PAR1"].iter().any(|m| corpus[0].starts_with(m));
        let begun = Instant::now();
        for turn in 0.. {
            if turn >= turns && seconds.is_none() || seconds.is_some_and(|s| begun.elapsed() > s) {
                done = turn;
                break;
            }
            let (a, b) = (r.below(corpus.len()), r.below(corpus.len()));
            let bytes = if database {
                let mut bytes = corpus[a].clone();
                for _ in 0..=r.below(6) {
                    let at = r.below(bytes.len());
                    bytes[at] = r.next() as u8;
                }
                bytes
            } else {
                mutate(&corpus[a], &corpus[b], most, &mut r)
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
            if kinds.len() < KINDS && kinds.insert(answer) && corpus.len() < 512 {
                corpus.push(bytes);
            }
        }
        if std::env::var_os("COTENANT_FUZZ_KEEP").is_some() {
            keep(name, &corpus);
        }
        eprintln!("{name}: {done} turns, {} kinds of answers, {:?}", kinds.len(), begun.elapsed());
    }
}

/// Inputs that are kept for this reader, in the order of their names.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let Ok(files) = std::fs::read_dir(folder(name)) else { return vec![] };
    let mut files: Vec<_> = files.map(|f| f.unwrap().path()).collect();
    files.sort();
    files.iter().map(|f| std::fs::read(f).unwrap()).collect()
}

fn folder(name: &str) -> PathBuf {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds");
    Path::new(seeds).join(name.replace(' ', "-"))
}

/// Writes the first input and, evenly spread, some of those that gave new kinds of answers.
fn keep(name: &str, corpus: &[Vec<u8>]) {
    let folder = folder(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut left = WRITTEN.1;
    for (i, bytes) in corpus.iter().step_by(corpus.len().div_ceil(WRITTEN.0)).enumerate() {
        if i > 0 && bytes.len() > left {
            break;
        }
        left = left.saturating_sub(bytes.len());
        std::fs::write(folder.join(format!("{i:02}")), bytes).unwrap();
    }
}
