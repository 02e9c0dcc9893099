//! Units of the fields that a sweep may vary, for the axes of plots.

use cotenant_sim::policy;

use super::{path, tenant};

/// Unit of plain numbers in a field of the experiment file; `None` where they have none, as where
/// values bring their unit or are names. `policies` gives the policy of a label.
pub(crate) fn unit<'a>(field: &str, policy_of: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let parts = path::segments(field);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts[..] {
        ["tenant", _, ref rest @ ..] => tenant::unit(rest),
        ["policy", label, option] => {
            let of = |name: &str| {
                let spec = policy::find(name)?.option(option)?;
                (!spec.unit.is_empty()).then(|| spec.unit.to_owned())
            };
            match policy_of(label) {
                Some(name) => of(name),
                // Every policy that has it, where they agree.
                None => {
                    let having = policy::ALL.iter().filter(|p| p.option(option).is_some());
                    let mut units = having.map(|p| of(p.name));
                    let first = units.next()?;
                    units.all(|u| u == first).then(|| first.clone())?
                }
            }
        }
        ["repeats"] => Some("repeats".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::unit;

    #[test]
    fn numbers_have_the_unit_of_their_field() {
        let of = |field: &str| {
            let unit = unit(field, |label| (label == "slow").then_some("temporal"));
            unit.map(|u| &*u.leak())
        };
        assert_eq!(of("tenant.vision.arrivals.rate"), Some("requests/s"));
        assert_eq!(of("tenant.*.arrivals.concurrency"), Some("requests"));
        assert_eq!(of("tenant.\"a.b\".batch.max"), Some("items"));
        assert_eq!(of("tenant.a.model"), None);
        assert_eq!(of("policy.slow.quantum"), None, "durations bring theirs");
        assert_eq!(of("policy.*.nothing"), None);
        assert_eq!(of("repeats"), Some("repeats"));
        assert_eq!(of("device"), None);
    }
}
