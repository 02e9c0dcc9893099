//! ServeGen (Alibaba, 2025): one client per `chunk-N-trace.csv`, one row per 10-minute window:
//! `t_s,rate_rps,cv,dist,p1,p2` without a header, `dist` being `Gamma`, `Weibull` or empty (idle),
//! `p1` its shape and `p2` its scale in seconds. A folder is all of its clients.
//!
//! ServeGen itself draws ⌈rate × 600⌉ gaps and stretches them to fill the window, which fixes every
//! window's count. Here the gaps run on across windows at the window's rate, with the window's
//! shape, so that counts vary as the fitted process says.

use crate::error::TraceError;
use crate::expand::Demand;
use crate::generate::Gap;
use crate::table::Table;

/// Columns of one window.
pub(crate) struct Window {
    pub(crate) rate: usize,
    pub(crate) cv: usize,
    pub(crate) dist: usize,
    pub(crate) p1: usize,
}

impl Window {
    /// The demand of the current record, and whether its variation was clamped to `cv_max`.
    pub(crate) fn demand(
        &self,
        table: &Table,
        bin_ns: u64,
        cv_max: f64,
    ) -> Result<(Demand, bool), TraceError> {
        let rate_rule = "a rate from 0 to 1e9 requests/s";
        let rate: f64 = table.number(self.rate, rate_rule)?;
        if !(0.0..=1e9).contains(&rate) {
            return Err(table.bad(self.rate, rate_rule));
        }
        let cv: f64 = table.number(self.cv, "a number")?;
        if !(cv >= 0.0) {
            return Err(table.bad(self.cv, "a number of at least 0"));
        }
        let expected = rate * bin_ns as f64 / 1e9;
        if expected > crate::expand::LARGEST_COUNT as f64 {
            return Err(table.bad(self.rate, "a rate of at most 100000000 requests per window"));
        }
        let shape_rule = "a shape above 0";
        let shape = || match table.number::<f64>(self.p1, shape_rule) {
            Ok(shape) if shape > 0.0 && shape.is_finite() => Ok(shape),
            _ => Err(table.bad(self.p1, shape_rule)),
        };
        let gap = match table.get(self.dist) {
            "" if rate == 0.0 => Gap::Exponential,
            "" => Gap::gamma_cv(cv.min(cv_max)),
            "Gamma" => Gap::Gamma { shape: shape()? },
            // Below this shape the mean overflows; the clamp below replaces it anyway.
            "Weibull" => Gap::weibull(shape()?.max(0.02)),
            _ => return Err(table.bad(self.dist, "`Gamma`, `Weibull` or empty")),
        };
        if gap.cv() <= cv_max {
            return Ok((Demand::Renewal { expected, gap }, false));
        }
        let gap = match gap {
            Gap::Weibull { .. } => Gap::weibull(Gap::weibull_shape(cv_max)),
            _ => Gap::gamma_cv(cv_max),
        };
        Ok((Demand::Renewal { expected, gap }, true))
    }
}
