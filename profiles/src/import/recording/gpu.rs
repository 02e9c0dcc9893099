//! The GPUs of a recording: which were used, which one is meant, and whether it is the device that
//! the profile is for.

use super::Recording;
use crate::Device;
use crate::import::ImportError;

/// Facts about a GPU according to a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its number in the recording.
    pub index: u32,
    /// The driver's name for it; empty if unknown.
    pub name: String,
    /// Compute units.
    pub cus: Option<u32>,
    /// Device memory, bytes.
    pub memory: Option<u64>,
}

/// A GPU that ran kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuUse {
    /// Its number in the recording.
    pub index: u32,
    /// Kernels that ran on it.
    pub kernels: usize,
    /// Their time, ns.
    pub busy_ns: u64,
}

impl Recording {
    /// The GPUs that ran kernels, by number.
    #[must_use]
    pub fn used(&self) -> Vec<GpuUse> {
        let mut used: Vec<GpuUse> = Vec::new();
        for kernel in &self.kernels {
            let at = used.iter().position(|u| u.index == kernel.gpu).unwrap_or_else(|| {
                used.push(GpuUse { index: kernel.gpu, kernels: 0, busy_ns: 0 });
                used.len() - 1
            });
            used[at].kernels += 1;
            used[at].busy_ns = used[at].busy_ns.saturating_add(kernel.duration);
        }
        used.sort_by_key(|u| u.index);
        used
    }

    /// Facts about the GPU that is meant, if the recording has any.
    ///
    /// # Errors
    /// Several GPUs ran kernels and none was chosen, or the chosen one ran none.
    pub fn gpu(&self, wanted: Option<u32>) -> Result<Option<&Gpu>, ImportError> {
        if self.summary.is_some() {
            return Ok(None);
        }
        let index = self.gpu_index(wanted)?;
        let known = self.gpus.iter().find(|g| g.index == index);
        // The only GPU that the recording names, although a process may number its GPUs differently.
        Ok(known.or_else(|| self.gpus.first().filter(|_| self.gpus.len() == 1)))
    }

    pub(super) fn gpu_index(&self, wanted: Option<u32>) -> Result<u32, ImportError> {
        let used = self.used();
        let list = || {
            let each = used.iter().map(|u| {
                let name = self.gpus.iter().find(|g| g.index == u.index).map_or("", |g| &g.name);
                let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
                format!("GPU {}{name}: {} kernels, {:.3} ms", u.index, u.kernels, ms(u.busy_ns))
            });
            each.collect::<Vec<_>>().join("; ")
        };
        match (wanted, used.as_slice()) {
            (Some(index), _) if used.iter().any(|u| u.index == index) => Ok(index),
            (Some(index), [_, ..]) => {
                Err(self.bad("gpu-index", index.to_string(), format!("one of: {}", list())))
            }
            (None, [_, _, ..]) => {
                let text = format!("a recording of {} GPUs", used.len());
                Err(self.bad(
                    "gpu-index",
                    text,
                    format!("one GPU: choose with --gpu-index: {}", list()),
                ))
            }
            (_, [one]) => Ok(one.index),
            (_, []) => Err(self.empty()),
        }
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

impl Gpu {
    /// Why this GPU is not `device`, if it is not: compute units, memory, or the chip in its name.
    #[must_use]
    pub fn mismatch(&self, device: &Device) -> Option<String> {
        let name = if self.name.is_empty() { "its GPU" } else { &self.name };
        if let Some(cus) = self.cus.filter(|c| *c != device.cus()) {
            return Some(format!("{name} has {cus} CUs, {} has {}", device.name, device.cus()));
        }
        let memory = self.memory.map(|m| (m, device.memory.capacity.0));
        if let Some((has, wants)) = memory.filter(|&(a, b)| a.abs_diff(b) > b / 8) {
            let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
            let (has, wants) = (gib(has), gib(wants));
            return Some(format!("{name} has {has:.1} GiB, {} has {wants:.1} GiB", device.name));
        }
        let chips = (chip(&self.name), chip(&device.title).or_else(|| chip(&device.name)));
        if let (Some(a), Some(b)) = chips
            && a != b
        {
            return Some(format!("{name} is not the {}", device.title));
        }
        if let (Some(a), Some(b)) = (board(&self.name), board(&device.title))
            && a != b
        {
            return Some(format!("{name} is not the {}", device.title));
        }
        None
    }
}

/// Which of the boards with the same chip a name refers to; they differ in clocks and limits.
fn board(name: &str) -> Option<&'static str> {
    let upper = name.to_uppercase();
    // NVIDIA names the H100 with a socket after its memory.
    [("PCIE", "pcie"), ("NVL", "nvl"), ("SXM", "sxm"), ("HBM3", "sxm")]
        .into_iter()
        .find_map(|(word, board)| upper.contains(word).then_some(board))
}

/// The word that names the chip: letters and digits, as in `H100`, `V100`, `MI50`, `4090`.
fn chip(name: &str) -> Option<String> {
    let upper = name.to_uppercase();
    let words = upper.split(|c: char| !c.is_ascii_alphanumeric());
    let is_chip = |w: &&str| {
        let letters = w.chars().take_while(char::is_ascii_alphabetic).count();
        let (head, digits) = w.split_at(letters);
        let number: String = digits.chars().take_while(char::is_ascii_digit).collect();
        let tail = &digits[number.len()..];
        // `80GB` is a size, `SXM2` a socket, `HBM2E` a memory.
        head.len() <= 2
            && (1..=4).contains(&number.len())
            && tail.len() <= 1
            && !(head.is_empty() && number.len() < 3)
    };
    words.into_iter().find(is_chip).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_is_known_by_its_word() {
        for (name, word) in [
            ("NVIDIA H100 80GB HBM3", Some("H100")),
            ("Tesla V100-SXM2-16GB", Some("V100")),
            ("NVIDIA A100-SXM4-40GB", Some("A100")),
            ("NVIDIA GeForce RTX 4090", Some("4090")),
            ("AMD Instinct MI50", Some("MI50")),
            ("AMD Instinct MI300X", Some("MI300X")),
            ("Tesla P40", Some("P40")),
            ("NVIDIA L4", Some("L4")),
            ("Tesla T4", Some("T4")),
            ("AMD Radeon Graphics", None),
        ] {
            assert_eq!(chip(name).as_deref(), word, "{name}");
        }
    }

    #[test]
    fn another_gpu_is_told_from_the_device() {
        let h100 = Device::builtin("h100-sxm").unwrap();
        let gpu = |name: &str, cus, gib: Option<u64>| Gpu {
            index: 0,
            name: name.to_owned(),
            cus,
            memory: gib.map(|g| g << 30),
        };
        assert_eq!(gpu("NVIDIA H100 80GB HBM3", Some(132), Some(79)).mismatch(&h100), None);
        assert_eq!(gpu("", None, None).mismatch(&h100), None);
        let why = |g: Gpu| g.mismatch(&h100).unwrap();
        let pcie = gpu("NVIDIA H100 PCIe", Some(114), Some(79));
        assert_eq!(why(pcie), "NVIDIA H100 PCIe has 114 CUs, h100-sxm has 132");
        let h200 = gpu("NVIDIA H200", Some(132), Some(140));
        assert_eq!(why(h200), "NVIDIA H200 has 140.0 GiB, h100-sxm has 79.6 GiB");
        assert!(
            why(gpu("NVIDIA H200", Some(132), None)).ends_with("is not the NVIDIA H100 SXM 80 GB")
        );
    }
}
