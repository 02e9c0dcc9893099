//! Finds the CUs that MPS grants for a percentage.

use super::Cost;

/// The shares that are tried.
pub(super) const PERCENTAGES: [f64; 12] =
    [10.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 90.0, 100.0];

/// The rounding steps that are considered, largest first.
const STEPS: [u32; 4] = [8, 4, 2, 1];

/// The CUs of every share, and the step by which the device rounds down, if it does. `seen` holds the
/// number of SMs that the driver names, and of those that blocks ran on.
pub(super) fn costs(seen: &[(f64, [u32; 2])], cus: u32) -> Vec<Cost> {
    let mut all: Vec<Cost> = seen
        .iter()
        .map(|(percent, [named, ran])| {
            let note = format!("blocks ran on {ran} SMs, the driver names {named}");
            Cost::of(&format!("mps_cus_at_{percent}"), "CUs", vec![f64::from(*named)], &note)
        })
        .collect();
    let unit = "CUs";
    let step = match rounding(seen, cus) {
        Ok(step) => {
            let note = "shares are multiples of it, rounded down, at least one";
            Cost::of("mps_round_cus", unit, vec![f64::from(step)], note)
        }
        Err(why) => Cost::none("mps_round_cus", unit, why),
    };
    all.push(step);
    all
}

fn rounding(seen: &[(f64, [u32; 2])], cus: u32) -> Result<u32, String> {
    if seen.len() < 4 {
        return Err(format!("{} shares are too few to tell", seen.len()));
    }
    let list = |i: usize| {
        let all: Vec<String> = seen.iter().map(|(p, s)| format!("{p} %: {}", s[i])).collect();
        all.join(", ")
    };
    // The attribute may name the whole device, but where blocks ran is certain.
    if let Some((percent, [named, ran])) = seen.iter().find(|(_, [named, ran])| named != ran) {
        return Err(format!(
            "at {percent} % the driver names {named} SMs and blocks ran on {ran}: {}",
            list(1)
        ));
    }
    let holds = |step: &&u32| {
        seen.iter().all(|(percent, [found, _])| {
            let exact = (f64::from(cus) * percent / 100.0 + 1e-9) as u32;
            *found == (exact / **step * **step).clamp(**step, cus)
        })
    };
    let found = STEPS.iter().find(holds).copied();
    found.ok_or_else(|| format!("no step of 8, 4, 2 or 1 CUs rounded down explains {}", list(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_is_found_and_what_has_none_is_shown() {
        let grant = |step: u32| {
            let of = |p: f64| ((132.0 * p / 100.0) as u32 / step * step).max(step);
            PERCENTAGES.map(|p| (p, [of(p); 2]))
        };
        for step in [1, 2, 4] {
            assert_eq!(rounding(&grant(step), 132), Ok(step));
        }
        let up = PERCENTAGES.map(|p| (p, [((1.32 * p) as u32).div_ceil(8) * 8; 2]));
        let error = rounding(&up, 132).unwrap_err();
        assert!(error.contains("10 %: 16"), "{error}");
        let mut lie = grant(2);
        lie[3].1[0] = 132;
        assert!(rounding(&lie, 132).unwrap_err().contains("at 30 % the driver names 132"));
        assert!(rounding(&grant(2)[..2], 132).unwrap_err().contains("too few"));
    }
}
