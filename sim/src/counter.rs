//! Counters of policies and devices: name, unit and meaning, declared once beside the value with
//! [`counters!`](crate::counters).

/// The description of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Its name in `counters.csv`.
    pub name: &'static str,
    /// The unit of its value.
    pub unit: &'static str,
    /// What it means, as a continuation of the name.
    pub doc: &'static str,
}

/// A counter with its value at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Count {
    /// The counter.
    pub counter: &'static Counter,
    /// Its value.
    pub amount: Amount,
}

/// A value that knows how to combine with another, from another GPU or another life of the same GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Values add up.
    Sum(f64),
    /// A mean, kept as sum and count; 0 if the count is 0.
    Mean {
        /// The sum over all things counted.
        sum: f64,
        /// The number of things counted.
        of: f64,
    },
    /// The larger value is kept.
    Most(f64),
}

impl Amount {
    /// The mean of a sum over this many things.
    #[must_use]
    pub fn mean(sum: u64, of: u64) -> Self {
        Self::Mean { sum: sum as f64, of: of as f64 }
    }

    /// The number shown in `counters.csv`.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::Sum(n) | Self::Most(n) => n,
            Self::Mean { of: 0.0, .. } => 0.0,
            Self::Mean { sum, of } => sum / of,
        }
    }

    /// Combines another value into this one.
    fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Sum(n), other) => *n += other.value(),
            (Self::Mean { sum, of }, Self::Mean { sum: more, of: others }) => {
                *sum += more;
                *of += others;
            }
            (one, other) => *one = Self::Most(one.value().max(other.value())),
        }
    }
}

impl From<u64> for Amount {
    fn from(n: u64) -> Self {
        Self::Sum(n as f64)
    }
}

impl From<f64> for Amount {
    fn from(n: f64) -> Self {
        Self::Sum(n)
    }
}

/// Adds the counts of another policy of the same kind.
pub fn add(all: &mut Vec<Count>, more: Vec<Count>) {
    for count in more {
        match all.iter_mut().find(|known| known.counter == count.counter) {
            Some(known) => known.amount.add(count.amount),
            None => all.push(count),
        }
    }
}

/// Declares what a type counts: the table `COUNTERS`, and `counted`, which fills it with values.
///
/// A line is a counter's meaning, its name, its unit, and its value: a `u64` or `f64`, which add up
/// over several GPUs, or an [`Amount`](crate::counter::Amount) that says otherwise.
///
/// ```
/// use cotenant_sim::counter::Amount;
///
/// struct Example {
///     asked: u64,
///     cus: u64,
/// }
///
/// cotenant_sim::counters! {
///     Example |example|
///     /// that the policy was asked about
///     "kernels", unit("kernels") = example.asked;
///     /// granted to a kernel, mean
///     "cus_mean", unit("CUs") = Amount::mean(example.cus, example.asked);
/// }
///
/// let counted = Example { asked: 2, cus: 7 }.counted();
/// assert_eq!(Example::COUNTERS[1].doc, "granted to a kernel, mean");
/// assert_eq!((counted[1].counter.unit, counted[1].amount.value()), ("CUs", 3.5));
/// ```
#[macro_export]
macro_rules! counters {
    (
        $who:ident |$me:ident|
        $($(#[doc = $doc:literal])+ $name:literal, unit($unit:literal) = $value:expr;)*
    ) => {
        impl $who {
            /// What it counts.
            pub(crate) const COUNTERS: &'static [$crate::counter::Counter] = &[
                $($crate::counter::Counter {
                    name: $name,
                    unit: $unit,
                    doc: ::core::concat!($($doc),+).trim_ascii(),
                },)*
            ];

            /// What it has counted, in the order of the table.
            pub(crate) fn counted(&self) -> ::std::vec::Vec<$crate::counter::Count> {
                let $me = self;
                let amounts = [$($crate::counter::Amount::from($value)),*];
                let count = |(counter, amount)| $crate::counter::Count { counter, amount };
                Self::COUNTERS.iter().zip(amounts).map(count).collect()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: Counter = Counter { name: "kernels", unit: "kernels", doc: "" };
    const CUS: Counter = Counter { name: "cus_mean", unit: "CUs", doc: "" };
    const LARGEST: Counter = Counter { name: "largest", unit: "kernels", doc: "" };

    /// The mean over two GPUs is that of all kernels, not a sum of two means.
    #[test]
    fn counts_of_two_gpus_become_one() {
        let of = |kernels: u64, cus: u64, largest: f64| {
            let amounts =
                [Amount::from(kernels), Amount::mean(cus, kernels), Amount::Most(largest)];
            let all = [&KERNELS, &CUS, &LARGEST].into_iter().zip(amounts);
            all.map(|(counter, amount)| Count { counter, amount }).collect::<Vec<_>>()
        };
        let mut all = vec![];
        add(&mut all, of(1, 10, 4.0));
        add(&mut all, of(3, 90, 2.0));
        let values: Vec<f64> = all.iter().map(|c| c.amount.value()).collect();
        assert_eq!(values, [4.0, 25.0, 4.0]);
        assert_eq!(Amount::mean(0, 0).value(), 0.0);
    }
}
