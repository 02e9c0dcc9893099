//! Time slices by the driver's names.

use crate::common::{World, closed, device, model, program, run, tenant, waves};
use cotenant_profiles::Nanos;
use cotenant_sim::policy::{self, Options, Value};

fn world() -> World {
    let mut world = World::new(device(&[10]), vec![waves(10, 1000, 100_000)]);
    let code = model(vec![program(&world.code, &[0], 5_000)]);
    world.tenants = vec![tenant("a", code.clone()), tenant("b", code)];
    world.duration = Nanos::from_millis(500);
    world
}

#[test]
fn a_name_is_a_quantum() {
    let digest = |options: &[(&str, Value)]| {
        run(world().scenario(vec![closed(1), closed(1)]), "temporal", options).digest
    };
    let named = |name: &str| digest(&[("interval", Value::Text(name.to_owned()))]);
    let of = |ms| digest(&[("quantum", Value::Duration(Nanos::from_millis(ms)))]);
    assert_eq!(named("long"), of(30));
    assert_eq!(named("medium"), of(10));
    assert_eq!(named("default"), digest(&[]));
    assert_ne!(named("long"), named("medium"));
}

#[test]
fn a_name_and_a_length_are_refused() {
    let both = [
        ("interval", Value::Text("long".to_owned())),
        ("quantum", Value::Duration(Nanos::from_millis(5))),
    ];
    let given = both.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let built = (policy::find("temporal").unwrap().build)(&Options(given));
    assert!(built.err().unwrap().to_string().contains("give one"));
}
