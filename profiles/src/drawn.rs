//! What a kernel was seen to draw of memory system and power supply.

/// What a kernel, alone, draws on so many compute units, as far as it is known. Whole numbers, so
/// that curves compare exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// Compute units.
    pub cus: u32,
    /// Utilisation of L2, parts per million.
    pub l2_ppm: Option<u32>,
    /// Utilisation of DRAM bandwidth, parts per million.
    pub dram_ppm: Option<u32>,
    /// The whole board's power, mW.
    pub milliwatts: Option<u32>,
}

impl Drawn {
    /// From shares (0 to 1) and watts.
    #[must_use]
    pub fn new(cus: u32, l2: Option<f64>, dram: Option<f64>, watts: Option<f64>) -> Self {
        let whole = |x: f64, unit: f64| (x * unit).round().clamp(0.0, f64::from(u32::MAX)) as u32;
        Self {
            cus,
            l2_ppm: l2.map(|x| whole(x, 1e6)),
            dram_ppm: dram.map(|x| whole(x, 1e6)),
            milliwatts: watts.map(|x| whole(x, 1e3)),
        }
    }

    /// Utilisation of L2, 0 to 1.
    #[must_use]
    pub fn l2(&self) -> Option<f64> {
        self.l2_ppm.map(|x| f64::from(x) / 1e6)
    }

    /// Utilisation of DRAM bandwidth, 0 to 1.
    #[must_use]
    pub fn dram(&self) -> Option<f64> {
        self.dram_ppm.map(|x| f64::from(x) / 1e6)
    }

    /// The whole board's power, W.
    #[must_use]
    pub fn watts(&self) -> Option<f64> {
        self.milliwatts.map(|x| f64::from(x) / 1e3)
    }

    /// Between two of them, linear in the CUs; what only one of them knows is that one's.
    #[must_use]
    pub(crate) fn between(a: &Self, b: &Self, cus: u32) -> Self {
        let part = |x: Option<u32>, y: Option<u32>| match (x, y) {
            (Some(x), Some(y)) => {
                let (x, y) = (i64::from(x), i64::from(y));
                let (from, to) = (i64::from(a.cus), i64::from(b.cus));
                let at = x + (y - x) * (i64::from(cus) - from) / (to - from).max(1);
                u32::try_from(at).ok()
            }
            (known, None) | (None, known) => known,
        };
        Self {
            cus,
            l2_ppm: part(a.l2_ppm, b.l2_ppm),
            dram_ppm: part(a.dram_ppm, b.dram_ppm),
            milliwatts: part(a.milliwatts, b.milliwatts),
        }
    }
}
