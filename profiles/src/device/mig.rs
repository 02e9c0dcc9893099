//! Hardware instances: where they may stand, which sets of them exist, what each is worth.
//!
//! An instance takes one to eight slots of the memory axis from a legal start, and compute slices
//! that only count. Creation order matters to the driver; with explicit starts it does not.

use super::{Device, Mig, MigProfile};
use crate::text;
use crate::units::Bytes;

/// One instance in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MigPlacement {
    /// Index into [`Mig::profiles`].
    pub profile: usize,
    /// First memory slice.
    pub start: u32,
}

/// What an instance is worth, as a device of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct MigInstance {
    /// Compute units.
    pub cus: u32,
    /// Share of the DRAM bandwidth, by memory slices, 0 to 1.
    pub dram_share: f64,
    /// Share of L2, 0 to 1.
    pub l2_share: f64,
    /// DRAM bandwidth, 10^9 bytes per second.
    pub dram_gbps: f64,
    /// L2.
    pub l2: Bytes,
    /// L2 bandwidth, 10^9 bytes per second.
    pub l2_gbps: f64,
    /// Device memory.
    pub capacity: Bytes,
    /// Copy engines.
    pub copy_engines: u32,
}

/// Why instances cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigError {
    /// No such profile.
    #[error("no instance profile `{name}`{hint}; this device has {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// `: did you mean …?`, or nothing.
        hint: String,
        /// The device's profiles.
        known: String,
    },
    /// Too many of one profile.
    #[error("{count} instances of `{name}`: this device holds at most {max}")]
    TooMany {
        /// The profile.
        name: String,
        /// Instances asked for.
        count: usize,
        /// Instances possible.
        max: u32,
    },
    /// More compute slices than there are.
    #[error("{names} take {wanted} compute slices: this device has {slices}")]
    Compute {
        /// The instances.
        names: String,
        /// Slices asked for.
        wanted: u32,
        /// Slices of the device.
        slices: u32,
    },
    /// No arrangement of legal starts holds them all.
    #[error("{names} do not fit the {slices} memory slices from any legal starts ({starts})")]
    NoPlacement {
        /// The instances.
        names: String,
        /// Memory slices of the device.
        slices: u32,
        /// Legal starts of the profiles asked for.
        starts: String,
    },
}

impl Mig {
    /// The profile of that name: the short one (`3g`, `1g+mem`), or NVIDIA's (`3g.40gb`, `1g.20gb`,
    /// `1g.10gb+me`). NVIDIA's sizes follow what the driver calls the whole memory, and differ by a
    /// gigabyte between boards; the profile of so many slices whose memory is nearest is meant, if it
    /// is near. Attributes (`+me`, `+gfx`, `-me`) change no size.
    ///
    /// # Errors
    /// There is none; the error names the closest.
    pub fn profile(&self, name: &str) -> Result<(usize, &MigProfile), MigError> {
        let short = self.profiles.iter().enumerate().find(|(_, p)| p.name == name);
        short.or_else(|| self.by_nvidias_name(name)).ok_or_else(|| {
            let known = || self.profiles.iter().map(|p| p.name.as_str());
            let both =
                self.profiles.iter().map(|p| format!("{} ({})", self.nvidias_name(p), p.name));
            MigError::Unknown {
                name: name.to_owned(),
                hint: text::did_you_mean(name, known()),
                known: both.collect::<Vec<_>>().join(", "),
            }
        })
    }

    fn by_nvidias_name(&self, name: &str) -> Option<(usize, &MigProfile)> {
        let (compute, rest) = name.split_once("g.")?;
        let compute: u32 = compute.parse().ok()?;
        let (size, attribute) = rest.split_once("gb")?;
        let size: f64 = size.parse::<u32>().ok()?.into();
        if !["", "+me", "+me.all", "+gfx", "-me"].contains(&attribute) {
            return None;
        }
        let away = |p: &MigProfile| (self.nvidias_size(p) - size).abs();
        let slices = self.profiles.iter().enumerate().filter(|(_, p)| p.compute == compute);
        let (index, profile) = slices.min_by(|a, b| away(a.1).total_cmp(&away(b.1)))?;
        (away(profile) <= 1.0f64.max(0.03 * size)).then_some((index, profile))
    }

    /// Gigabytes in NVIDIA's name of a profile: its memory slices' share of the whole memory, rounded
    /// (mig-parted, `pkg/mig`).
    fn nvidias_size(&self, profile: &MigProfile) -> f64 {
        // The whole device's own instance holds a little less than the device.
        let whole = self.profiles.iter().map(|p| p.capacity.0).max().unwrap_or(0) as f64;
        let gib = (whole / f64::from(1u32 << 30) * 1.006).ceil();
        (gib * f64::from(profile.memory) / f64::from(self.memory_slices)).round()
    }

    /// NVIDIA's name of a profile, such as `3g.40gb`.
    #[must_use]
    pub fn nvidias_name(&self, profile: &MigProfile) -> String {
        format!("{}g.{}gb", profile.compute, self.nvidias_size(profile))
    }

    /// Places instances of the named profiles: one placement per name, in the order of `names`,
    /// the same one every time.
    ///
    /// # Errors
    /// An unknown name, too many of one profile or of compute slices, or no legal arrangement.
    pub fn placements(&self, names: &[&str]) -> Result<Vec<MigPlacement>, MigError> {
        let wanted: Vec<usize> =
            names.iter().map(|n| self.profile(n).map(|(i, _)| i)).collect::<Result<_, _>>()?;
        for (index, profile) in self.profiles.iter().enumerate() {
            let count = wanted.iter().filter(|&&w| w == index).count();
            if count > profile.max as usize {
                let (name, max) = (profile.name.clone(), profile.max);
                return Err(MigError::TooMany { name, count, max });
            }
        }
        // The engines of `+me` are in one instance.
        let media = |name: &&&str| name.ends_with("+me") || name.ends_with("+me.all");
        if let Some(name) = names.iter().filter(media).nth(1) {
            let count = names.iter().filter(media).count();
            return Err(MigError::TooMany { name: (*name).to_owned(), count, max: 1 });
        }
        let compute: u32 = wanted.iter().map(|&w| self.profiles[w].compute).sum();
        if compute > self.compute_slices {
            return Err(MigError::Compute {
                names: names.join(" + "),
                wanted: compute,
                slices: self.compute_slices,
            });
        }
        self.arrange(&wanted).ok_or_else(|| {
            let mut asked = wanted.clone();
            asked.sort_unstable();
            asked.dedup();
            let starts: Vec<String> = asked
                .iter()
                .map(|&i| format!("{} from {:?}", self.profiles[i].name, self.profiles[i].starts))
                .collect();
            MigError::NoPlacement {
                names: names.join(" + "),
                slices: self.memory_slices,
                starts: starts.join(", "),
            }
        })
    }

    /// Every set of exactly `n` instances that can be and that no other set of `n` beats: another
    /// one beats it if its instances, matched one to one, have at least as many CUs, memory and
    /// L2 slices each. Profile indices, descending within a set; sets in a fixed order.
    #[must_use]
    pub fn combinations(&self, n: usize) -> Vec<Vec<usize>> {
        let mut legal = Vec::new();
        self.extend(n, self.profiles.len(), &mut Vec::new(), &mut legal);
        let beaten = |set: &Vec<usize>| {
            legal
                .iter()
                .any(|other| other != set && self.covers(other, set) && !self.covers(set, other))
        };
        let kept: Vec<bool> = legal.iter().map(|set| !beaten(set)).collect();
        legal.into_iter().zip(kept).filter_map(|(set, keep)| keep.then_some(set)).collect()
    }

    /// Every legal set of `n` instances, descending, profiles below `below` only.
    fn extend(&self, n: usize, below: usize, set: &mut Vec<usize>, out: &mut Vec<Vec<usize>>) {
        if !self.legal(set) {
            return; // a superset of an impossible set is impossible
        }
        if set.len() == n {
            out.push(set.clone());
            return;
        }
        for index in (0..below).rev() {
            set.push(index);
            self.extend(n, index + 1, set, out);
            set.pop();
        }
    }

    fn legal(&self, set: &[usize]) -> bool {
        let within_max = set
            .iter()
            .all(|&i| set.iter().filter(|&&j| j == i).count() <= self.profiles[i].max as usize);
        let compute: u32 = set.iter().map(|&i| self.profiles[i].compute).sum();
        within_max && compute <= self.compute_slices && self.arrange(set).is_some()
    }

    /// The first arrangement in the order of starts, largest instances placed first.
    fn arrange(&self, wanted: &[usize]) -> Option<Vec<MigPlacement>> {
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.profiles[wanted[i]].memory));
        let mut starts = vec![0; wanted.len()];
        self.arrange_from(wanted, &order, 0, &mut starts).then(|| {
            wanted
                .iter()
                .zip(&starts)
                .map(|(&profile, &start)| MigPlacement { profile, start })
                .collect()
        })
    }

    fn arrange_from(
        &self,
        wanted: &[usize],
        order: &[usize],
        taken: u64,
        starts: &mut [u32],
    ) -> bool {
        let Some((&next, rest)) = order.split_first() else { return true };
        let profile = &self.profiles[wanted[next]];
        for &start in &profile.starts {
            let slots = ((1u64 << profile.memory) - 1) << start;
            if taken & slots == 0 {
                starts[next] = start;
                if self.arrange_from(wanted, rest, taken | slots, starts) {
                    return true;
                }
            }
        }
        false
    }

    /// Whether the instances of `big` can be matched to those of `small`, each at least as large.
    fn covers(&self, big: &[usize], small: &[usize]) -> bool {
        let at_least = |a: usize, b: usize| {
            let (a, b) = (&self.profiles[a], &self.profiles[b]);
            a.cus >= b.cus && a.memory >= b.memory && a.l2_slices >= b.l2_slices
        };
        // Augmenting paths; at most eight instances, so the plain form is fast enough.
        let mut owner: Vec<Option<usize>> = vec![None; big.len()];
        fn assign(
            s: usize,
            fits: &dyn Fn(usize, usize) -> bool,
            owner: &mut [Option<usize>],
            seen: &mut [bool],
        ) -> bool {
            for b in 0..owner.len() {
                if !seen[b] && fits(b, s) {
                    seen[b] = true;
                    let free = match owner[b] {
                        None => true,
                        Some(other) => assign(other, fits, owner, seen),
                    };
                    if free {
                        owner[b] = Some(s);
                        return true;
                    }
                }
            }
            false
        }
        let fits = |b: usize, s: usize| at_least(big[b], small[s]);
        (0..small.len()).all(|s| assign(s, &fits, &mut owner, &mut vec![false; big.len()]))
    }
}

impl Device {
    /// What an instance of `profile` is worth: DRAM bandwidth goes with the memory slices, L2 with
    /// its own. A device without instances gives the profile's CUs and nothing else of value.
    #[must_use]
    pub fn mig_instance(&self, profile: &MigProfile) -> MigInstance {
        let slices = self.mig.as_ref().map_or(1, |m| m.memory_slices.max(1));
        let dram_share = f64::from(profile.memory) / f64::from(slices);
        let l2_share = f64::from(profile.l2_slices) / f64::from(slices);
        MigInstance {
            cus: profile.cus,
            dram_share,
            l2_share,
            dram_gbps: self.memory.dram_gbps * dram_share,
            l2: Bytes(self.memory.l2.0 / u64::from(slices) * u64::from(profile.l2_slices)),
            l2_gbps: self.memory.l2_gbps * l2_share,
            capacity: profile.capacity,
            copy_engines: profile.copy_engines,
        }
    }

    /// An instance as a device of its own: its CUs in as many groups as it has compute slices, its
    /// share of memory and rates. Link, power and mechanisms stay those of the board; instances
    /// cannot be split again.
    #[must_use]
    pub fn mig_device(&self, profile: &MigProfile) -> Self {
        let instance = self.mig_instance(profile);
        let mut device = self.clone();
        let share = f64::from(profile.cus) / f64::from(self.cus());
        let groups = profile.compute.clamp(1, profile.cus.max(1));
        device.name = format!("{}:{}", self.name, profile.name);
        device.topology.groups = (0..groups)
            .map(|g| profile.cus / groups + u32::from(g < profile.cus % groups))
            .collect();
        device.compute.fp32_tflops *= share;
        device.compute.tf32_tflops *= share;
        device.compute.fp16_tflops *= share;
        device.compute.bf16_tflops = device.compute.bf16_tflops.map(|rate| rate * share);
        device.compute.fp8_tflops = device.compute.fp8_tflops.map(|rate| rate * share);
        device.compute.int8_tops *= share;
        device.memory.capacity = instance.capacity;
        device.memory.dram_gbps = instance.dram_gbps;
        device.memory.l2 = instance.l2;
        device.memory.l2_gbps = instance.l2_gbps;
        device.pcie.copy_engines = instance.copy_engines;
        // A CU draws as much as before.
        let saturating = f64::from(self.analytic.dram_saturating_cus) * instance.dram_share;
        device.analytic.dram_saturating_cus = (saturating.ceil() as u32).clamp(1, profile.cus);
        device.mig = None;
        device
    }
}
