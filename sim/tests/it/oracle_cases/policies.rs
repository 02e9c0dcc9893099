//! Registered policies with random options, and a witness of what a policy is told.

use cotenant_profiles::Nanos;
use cotenant_sim::action::{Action, Event};
use cotenant_sim::policy::{ALL, Around, Kind, OptionSpec, Options, Policy, PolicyInfo, Value};
use cotenant_sim::serving::RequestId;
use cotenant_sim::view::{Queued, Status, TenantView, View, Window, Worker};
use cotenant_traces::Rng;

use super::Shape;

/// What a policy was told, and what it could see then.
pub(crate) type Told = (
    u64,
    Event,
    Vec<TenantView>,
    Vec<(Vec<Queued>, Option<Window>)>,
    Vec<(Worker, Option<u32>)>,
    Vec<Vec<u32>>,
);

/// The policy, and all that it is told in `told`.
pub(crate) fn witnessed<'a>(
    policy: &'a mut dyn Policy,
    told: &'a mut Vec<Told>,
) -> impl Policy + 'a {
    Around::new(policy, |policy: &mut dyn Policy, event, view: &View<'_>, act: &mut Vec<Action>| {
        // Who has launched nothing may be unknown to the GPU.
        let held = |i, w: &Worker| {
            let launched = w.status == Status::Launched;
            launched.then(|| view.gpu.held(i)).flatten()
        };
        let workers = (0..).zip(view.workers).map(|(i, w)| (told_of(w), held(i, w))).collect();
        let lanes = view.pools.iter().map(|p| p.lanes.clone()).collect();
        // Requests go by other numbers elsewhere.
        let seen = |q: Queued| Queued { id: RequestId(0), ..q };
        let queues = (0..view.tenants.len() as u32)
            .map(|t| (view.queue(t).map(seen).collect(), view.queues.window(t).cloned()));
        told.push((view.now.0, event, view.tenants.to_vec(), queues.collect(), workers, lanes));
        policy.event(event, view, act);
    })
}

/// A worker without what means nothing in its state.
fn told_of(worker: &Worker) -> Worker {
    let mut w = worker.clone();
    if !matches!(w.status, Status::Host | Status::Held | Status::Launched) {
        (w.items, w.position, w.began) = (0, 0, Nanos::ZERO);
    }
    if !matches!(w.status, Status::Held | Status::Launched) {
        w.kernel = 0;
    }
    w
}

/// Every policy but the bound, which runs nowhere.
pub(crate) fn registered() -> Vec<&'static PolicyInfo> {
    ALL.iter().copied().filter(|p| !p.is_bound()).collect()
}

/// The policy with the random options of a scenario: the same each time.
pub(crate) fn of(info: &PolicyInfo, shape: &Shape) -> Box<dyn Policy> {
    let mut rng = Rng::for_names(shape.seed, &["options"]);
    random(info, shape.tenants as usize, &mut rng)
}

/// The policy with random options, on the time scale of the random scenarios.
fn random(info: &PolicyInfo, tenants: usize, rng: &mut Rng) -> Box<dyn Policy> {
    let mut given = Options::default();
    for option in info.options {
        // Windows and waits of seconds would never end.
        let needed = matches!(option.kind, Kind::Duration(_));
        let Some(value) = value(info, option, tenants, rng) else { continue };
        if !needed && rng.below(2) == 0 {
            continue;
        }
        given.0.push((option.name.to_owned(), value));
        if (info.build)(&given).is_err() {
            given.0.pop();
        }
    }
    (info.build)(&given).expect("what it refused was taken back")
}

fn value(info: &PolicyInfo, option: &OptionSpec, tenants: usize, rng: &mut Rng) -> Option<Value> {
    let mut below = |n: u64| rng.below(n);
    let mut word =
        |words: &[&str]| Value::Text(words[below(words.len() as u64) as usize].to_owned());
    Some(match option.kind {
        Kind::Duration(least) => Value::Duration(Nanos(below(20_000)).max(least)),
        Kind::Integer(lo, hi) => Value::Integer(lo + below((hi - lo).min(8) as u64 + 1) as i64),
        Kind::Float(lo, hi) => {
            let width = if hi.is_finite() { hi - lo } else { 3.0 };
            Value::Float(lo + width * below(1_001) as f64 / 1_000.0)
        }
        Kind::Bool => Value::Bool(below(2) == 0),
        Kind::Choice(words) => word(words),
        Kind::PerTenant(words) if below(2) == 0 => {
            let w = words[below(words.len() as u64) as usize];
            Value::Text(w.to_owned())
        }
        Kind::PerTenant(_) => {
            Value::Numbers((0..tenants).map(|_| 1.0 + below(60) as f64).collect())
        }
        Kind::Texts if info.name == "gslice" && option.name == "schedule" && below(3) == 0 => {
            let entry = |i: u64| format!("{}us:{}", 15 * i, 20 + 10 * i);
            Value::Texts((0..6).map(entry).collect())
        }
        Kind::Places => Value::Numbers((0..tenants).map(|_| below(3) as f64).collect()),
        Kind::Text | Kind::Texts => return None,
    })
}
