//! Instance profiles as NVIDIA's tools name them.
//!
//! `3g.40gb` is 3 compute slices and the memory of the instance as a share of the board's, in eighths
//! and rounded up, times the board's memory in GiB, rounded up (go-nvlib, `mig_profile.go`). The
//! board's memory is what the driver says, so that the same board may be `1g.23gb` under one driver and
//! `1g.24gb` under another.

use cotenant_profiles::Device;
use cotenant_profiles::device::MigProfile;

/// What to say of a GPU without MIG to somebody who asks for instances: how else it is shared, and which
/// devices have them.
#[must_use]
pub fn no_instances(device: &Device) -> String {
    let how = match device.mps {
        _ if device.is_amd() => "time slicing or masks of CUs",
        Some(mps) if mps.round_cus < device.cus() => "time slicing, MPS or MPS percentages",
        Some(_) => "time slicing or MPS",
        None => "time slicing",
    };
    let with =
        Device::builtin_names().filter(|name| Device::builtin(name).is_ok_and(|d| d.mig.is_some()));
    format!(
        "{} has no hardware instances (MIG): share it by {how}, or take a device that has them ({})",
        device.title,
        with.collect::<Vec<_>>().join(", ")
    )
}

/// NVIDIA's name of a device file's profile: `3g` is `3g.40gb` on 80 GB, `1g+me` is `1g.10gb+me`.
#[must_use]
pub fn instance_name(device: &Device, profile: &MigProfile) -> String {
    if profile.name.contains("gb") {
        return profile.name.clone();
    }
    let slices = device.mig.as_ref().map_or(8, |m| m.memory_slices.max(1));
    let gib = device.memory.capacity.0.div_ceil(1 << 30);
    let eighths = f64::from(profile.memory) / f64::from(slices);
    let memory = (eighths * gib as f64).round();
    // The file's own names for variants: `+mem` is told apart by its memory, others are attributes.
    let attribute = profile.name.split_once('+').map_or("", |(_, a)| a);
    let attribute = match attribute {
        "" | "mem" => String::new(),
        other => format!("+{other}"),
    };
    format!("{}g.{memory}gb{attribute}", profile.compute)
}

/// The device file's name of an instance profile that a file names in any of the ways in use: the
/// short name, NVIDIA's name, NVIDIA's name under another driver (the closest memory wins, within a
/// tenth), and the form that Kubernetes resources have (`1g.10gb.me`).
///
/// # Errors
/// No such profile; the error lists those of the device.
pub fn short_name(device: &Device, name: &str) -> Result<String, String> {
    let Some(table) = &device.mig else {
        return Err(no_instances(device));
    };
    let name = name.trim();
    let dotted = name.replace(".me", "+me");
    for p in &table.profiles {
        if p.name == name || instance_name(device, p) == dotted {
            return Ok(p.name.clone());
        }
    }
    let wanted = parse(&dotted);
    let close = wanted.and_then(|(compute, gb, attribute)| {
        let fits = |p: &&MigProfile| {
            parse(&instance_name(device, p)).is_some_and(|(c, g, a)| {
                c == compute && a == attribute && (g - gb).abs() <= gb / 10.0
            })
        };
        table.profiles.iter().find(fits)
    });
    close.map(|p| p.name.clone()).ok_or_else(|| {
        let known: Vec<String> = table.profiles.iter().map(|p| instance_name(device, p)).collect();
        let smaller = name.starts_with(|c: char| c.is_ascii_digit()) && name.contains("c.");
        let why = if smaller {
            ": compute instances smaller than their GPU instance are not modelled"
        } else {
            ""
        };
        format!("no instance profile `{name}`{why}; {} has {}", device.title, known.join(", "))
    })
}

/// Compute slices, GB, attribute.
fn parse(name: &str) -> Option<(u32, f64, &str)> {
    let (compute, rest) = name.split_once("g.")?;
    let (gb, attribute) = rest.split_once("gb")?;
    Some((compute.parse().ok()?, gb.parse().ok()?, attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_have_the_names_of_real_boards() {
        let names = |device: &str| {
            let device = Device::builtin(device).expect("it ships");
            let mig = device.mig.clone().expect("it has instances");
            mig.profiles.iter().map(|p| instance_name(&device, p)).collect::<Vec<_>>()
        };
        let has = |device: &str, wanted: &[&str]| {
            let names = names(device);
            wanted.iter().all(|w| names.iter().any(|n| n == w))
        };
        assert!(has(
            "h100-sxm",
            &["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]
        ));
        assert!(has("a100-sxm-40", &["1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "7g.40gb"]));
        assert!(has("a30", &["1g.6gb", "2g.12gb", "4g.24gb"]));
        assert!(
            has("h200-sxm", &["1g.18gb", "2g.35gb", "3g.71gb", "7g.141gb"]),
            "{:?}",
            names("h200-sxm")
        );
    }

    #[test]
    fn a_profile_answers_to_all_its_names() {
        let h100 = Device::builtin("h100-sxm").expect("it ships");
        for name in ["3g", "3g.40gb", "3g.39gb"] {
            assert_eq!(short_name(&h100, name).as_deref(), Ok("3g"), "{name}");
        }
        let error = short_name(&h100, "3g.20gb").expect_err("no such profile");
        assert!(error.contains("3g.40gb"), "{error}");
        assert!(
            short_name(&h100, "1c.3g.40gb").expect_err("not modelled").contains("not modelled")
        );
    }
}
