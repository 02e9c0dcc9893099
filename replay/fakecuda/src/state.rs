//! Handles, the log of calls, and what went wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::{Stream, nasty};

pub(crate) const OK: c_int = 0;
const INVALID_HANDLE: c_int = 400;

/// Kinds of handles whose life is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Context,
    Green,
    Stream,
    Event,
    Module,
    Memory,
    Library,
}

enum Module {
    Code(String),
    Function(String),
}

#[derive(Default)]
struct State {
    log: String,
    calls: BTreeMap<&'static str, usize>,
    alive: BTreeMap<(Kind, usize), ()>,
    wrong: usize,
    next: usize,
    streams: BTreeMap<usize, Stream>,
    events: BTreeMap<usize, Option<Instant>>,
    homes: BTreeMap<usize, usize>,
    timed: BTreeSet<usize>,
    /// When each event was last recorded, in the order of all calls, and in which stream.
    marks: BTreeMap<usize, (usize, usize)>,
    /// Counts marks and work.
    order: usize,
    /// Work in the order of all calls, and its stream.
    work: Vec<(usize, usize)>,
    /// What was launched before.
    warm: BTreeSet<String>,
    /// A kernel has failed: the context is of no use any more.
    broken: bool,
    greens: BTreeMap<usize, u32>,
    modules: BTreeMap<usize, Module>,
    memory: BTreeMap<usize, Vec<u8>>,
    /// Until when launches use memory, where they say so.
    used: BTreeMap<usize, Instant>,
    /// Handles of host memory, by address.
    host: BTreeMap<usize, usize>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

struct Guard(MutexGuard<'static, Option<State>>);

impl std::ops::Deref for Guard {
    type Target = State;
    fn deref(&self) -> &State {
        self.0.as_ref().expect("filled by `state`")
    }
}
impl std::ops::DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().expect("filled by `state`")
    }
}

fn state() -> Guard {
    let mut guard = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    guard.get_or_insert_with(|| State { next: 0x10_0000, ..State::default() });
    Guard(guard)
}

/// Logs a call; the code with which it must fail, or 0.
pub(crate) fn enter(name: &'static str) -> c_int {
    let mut s = state();
    s.log.push_str(name);
    s.log.push('\n');
    let count = s.calls.entry(name).or_default();
    *count += 1;
    let Ok(plan) = std::env::var("FAKECUDA_FAIL") else { return OK };
    let parts: Vec<&str> = plan.split(':').collect();
    let nth = parts.get(2).and_then(|n| n.parse().ok()).unwrap_or(1);
    match parts[..] {
        [of, code, ..] if of == name && *count == nth => code.parse().unwrap_or(999),
        _ => OK,
    }
}

/// A line in the log, of something wrong if `wrong`.
pub(crate) fn note(text: &str, wrong: bool) {
    let mut s = state();
    s.log.push_str(text);
    s.log.push('\n');
    s.wrong += usize::from(wrong);
}

pub(crate) fn log() -> String {
    state().log.clone()
}

pub(crate) fn live() -> (usize, usize) {
    let s = state();
    (s.alive.len(), s.wrong)
}

pub(crate) fn make(kind: Kind, handle: usize) {
    state().alive.insert((kind, handle), ());
}

pub(crate) fn unmake(kind: Kind, handle: usize) -> c_int {
    let mut s = state();
    if s.alive.remove(&(kind, handle)).is_some() {
        return OK;
    }
    s.wrong += 1;
    s.log.push_str("wrong: destroys what is not alive\n");
    INVALID_HANDLE
}

fn fresh(kind: Kind) -> usize {
    let mut s = state();
    s.next += 0x100;
    let handle = s.next;
    s.alive.insert((kind, handle), ());
    handle
}

pub(crate) fn add_stream(stream: Stream) -> usize {
    let handle = fresh(Kind::Stream);
    state().streams.insert(handle, stream);
    handle
}
pub(crate) fn drop_stream(handle: usize) -> c_int {
    state().streams.remove(&handle);
    unmake(Kind::Stream, handle)
}
pub(crate) fn with<R>(handle: usize, f: impl FnOnce(&mut Stream) -> R) -> Option<R> {
    state().streams.get_mut(&handle).map(f)
}
pub(crate) fn streams() -> Vec<Stream> {
    state().streams.values().copied().collect()
}

pub(crate) fn add_event(home: usize, timed: bool) -> usize {
    let handle = fresh(Kind::Event);
    let mut s = state();
    if timed {
        s.timed.insert(handle);
    }
    s.events.insert(handle, None);
    s.homes.insert(handle, home);
    handle
}
/// Whether an event tells time.
pub(crate) fn is_timed(event: usize) -> bool {
    state().timed.contains(&event)
}
/// The context that an event was made in.
pub(crate) fn home(event: usize) -> usize {
    state().homes.get(&event).copied().unwrap_or(0)
}
pub(crate) fn drop_event(handle: usize) -> c_int {
    state().events.remove(&handle);
    unmake(Kind::Event, handle)
}
pub(crate) fn set_event(handle: usize, at: Instant, stream: usize) -> c_int {
    let mut s = state();
    let Some(event) = s.events.get_mut(&handle) else { return INVALID_HANDLE };
    *event = Some(at);
    s.order += 1;
    let order = s.order;
    s.marks.insert(handle, (order, stream));
    OK
}
/// Whether two events were made in different contexts, or recorded in streams of different ones.
pub(crate) fn contexts(a: usize, b: usize) -> bool {
    let s = state();
    let of = |event: &usize| {
        let stream = s.marks.get(event).map_or(0, |(_, stream)| *stream);
        s.streams.get(&stream).map_or(0, |s| s.green)
    };
    of(&a) != of(&b)
}
/// Whether two events were recorded in different streams.
pub(crate) fn in_two_streams(a: usize, b: usize) -> bool {
    let s = state();
    s.marks.get(&a).map(|m| m.1) != s.marks.get(&b).map(|m| m.1)
}
/// Whether a stream of another context than this one's is busy.
pub(crate) fn has_company(stream: usize) -> bool {
    let s = state();
    let green = s.streams.get(&stream).map_or(0, |s| s.green);
    let now = Instant::now();
    s.streams.values().any(|other| other.green != green && other.end() > now)
}
/// Work went to a stream.
pub(crate) fn worked(stream: usize) {
    let mut s = state();
    s.order += 1;
    let order = s.order;
    s.work.push((order, stream));
}
/// Two events of one stream stand around the work that they time: work between them that lies in
/// other streams alone is not what is timed.
pub(crate) fn check_marks(from: usize, to: usize) {
    let mut s = state();
    let (Some(&(first, stream)), Some(&(last, same))) = (s.marks.get(&from), s.marks.get(&to))
    else {
        return;
    };
    if stream != same || first > last {
        return;
    }
    let begin = s.work.partition_point(|(order, _)| *order < first);
    let between = s.work[begin..].iter().take_while(|(order, _)| *order < last);
    let (mut all, mut own) = (0, 0);
    for (_, of) in between {
        all += 1;
        own += usize::from(*of == stream);
    }
    if all > 0 && own == 0 {
        s.wrong += 1;
        s.log.push_str("wrong: the work between two events is in another stream than they are\n");
    }
}
/// The first launch of something loads it, where one of these traits says so.
pub(crate) fn first_launch(what: &str, traits: &[&str]) {
    let first = state().warm.insert(what.to_owned());
    if first {
        traits.iter().for_each(|name| nasty::take(name));
    }
}
pub(crate) fn break_context() {
    state().broken = true;
}
pub(crate) fn broken() -> bool {
    state().broken
}
#[allow(clippy::option_option)] // no such event; an event that was never recorded
pub(crate) fn event(handle: usize) -> Option<Option<Instant>> {
    state().events.get(&handle).copied()
}

pub(crate) fn add_green(sms: u32) -> usize {
    let handle = fresh(Kind::Green);
    state().greens.insert(handle, sms);
    handle
}
pub(crate) fn drop_green(handle: usize) -> c_int {
    state().greens.remove(&handle);
    unmake(Kind::Green, handle)
}
pub(crate) fn green(handle: usize) -> Option<u32> {
    state().greens.get(&handle).copied()
}

pub(crate) fn add_module(code: String) -> usize {
    let handle = fresh(Kind::Module);
    state().modules.insert(handle, Module::Code(code));
    handle
}
pub(crate) fn drop_module(handle: usize) -> c_int {
    state().modules.remove(&handle);
    unmake(Kind::Module, handle)
}
/// A function of a module, where the PTX has an entry of that name.
pub(crate) fn function(module: usize, name: &str) -> Option<usize> {
    let mut s = state();
    let known = match s.modules.get(&module) {
        Some(Module::Code(code)) => code.contains(&format!(".entry {name}(")),
        _ => false,
    };
    if !known {
        return None;
    }
    s.next += 0x100;
    let handle = s.next;
    s.modules.insert(handle, Module::Function(name.to_owned()));
    Some(handle)
}
pub(crate) fn function_name(handle: usize) -> Option<String> {
    match state().modules.get(&handle) {
        Some(Module::Function(name)) => Some(name.clone()),
        _ => None,
    }
}

pub(crate) fn allocate(n: usize) -> usize {
    let handle = fresh(Kind::Memory);
    let mut s = state();
    // No other handle lies within it: an address inside tells what it belongs to.
    s.next += n.next_multiple_of(0x100);
    s.memory.insert(handle, vec![0; n]);
    handle
}
pub(crate) fn free(handle: usize) -> c_int {
    let mut s = state();
    s.memory.remove(&handle);
    if s.used.remove(&handle).is_some_and(|until| until > Instant::now()) {
        s.wrong += 1;
        s.log.push_str("wrong: memory is freed before the launch that uses it has ended\n");
    }
    drop(s);
    unmake(Kind::Memory, handle)
}
/// Notes that `n` bytes at this address are used until then; false where they are not all there.
pub(crate) fn read_until(address: usize, n: u64, until: Option<Instant>) -> bool {
    let mut s = state();
    let found = s.memory.range(..=address).next_back().map(|(h, memory)| (*h, memory.len()));
    match (found, until) {
        (Some((handle, size)), Some(until)) if (address - handle) as u64 + n <= size as u64 => {
            let known = s.used.entry(handle).or_insert(until);
            *known = until.max(*known);
            true
        }
        _ => false,
    }
}
/// The first `n` numbers of 64 bits at this address; none where they are not all there.
pub(crate) fn words(address: usize, n: usize) -> Vec<u64> {
    let s = state();
    let found = s.memory.range(..=address).next_back();
    let bytes = found.and_then(|(h, memory)| memory.get(address - h..)?.get(..8 * n));
    let (words, _) = bytes.unwrap_or_default().as_chunks::<8>();
    words.iter().map(|w| u64::from_le_bytes(*w)).collect()
}
pub(crate) fn bytes(handle: usize, n: usize, f: impl FnOnce(&mut [u8])) -> c_int {
    match state().memory.get_mut(&handle) {
        Some(memory) if memory.len() >= n => {
            f(&mut memory[..n]);
            OK
        }
        _ => 1,
    }
}

/// Copies within memory; both parts must be memory that is alive.
pub(crate) fn copy(to: usize, from: usize, n: usize) -> c_int {
    let mut s = state();
    let found = |s: &State, address: usize| {
        let (h, memory) = s.memory.range(..=address).next_back()?;
        (address - h + n <= memory.len()).then_some((*h, address - h))
    };
    let (Some((source, at)), Some((target, place))) = (found(&s, from), found(&s, to)) else {
        return 1;
    };
    let part = s.memory[&source][at..at + n].to_vec();
    if let Some(memory) = s.memory.get_mut(&target) {
        memory[place..place + n].copy_from_slice(&part);
    }
    OK
}

/// Memory of the host: what the handle stands for, at its real address.
pub(crate) fn address(handle: usize) -> usize {
    let mut s = state();
    let Some(memory) = s.memory.get(&handle) else { return 0 };
    let address = memory.as_ptr() as usize;
    s.host.insert(address, handle);
    address
}
pub(crate) fn free_address(address: usize) -> c_int {
    let handle = state().host.remove(&address);
    handle.map_or(INVALID_HANDLE, free)
}

/// A handle of a library, which is counted like the driver's.
pub(crate) fn add_library() -> usize {
    fresh(Kind::Library)
}
pub(crate) fn drop_library(handle: usize) -> c_int {
    unmake(Kind::Library, handle)
}
