//! A figure in data coordinates: produced by each kind of plot and drawn by `chart`.

use cotenant_results::Legend;

use crate::axis::Axis;
use crate::style::{Look, Rgb};

/// One mark in a panel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mark {
    /// A line through the points.
    Line { points: Vec<(f64, f64)>, color: Rgb, dash: &'static [f64], width: f64 },
    /// The area between a lower and an upper edge: `(x, low, high)`.
    Band { points: Vec<(f64, f64, f64)>, color: Rgb, opacity: f64 },
    /// A marker, hollow or filled.
    Point { at: (f64, f64), look: Look, hollow: bool },
    /// A confidence interval, vertical at `x`.
    ErrorY { x: f64, low: f64, high: f64, color: Rgb },
    /// A confidence interval, horizontal at `y`.
    ErrorX { y: f64, low: f64, high: f64, color: Rgb },
    /// A bar from 0 to `top` between two places on the x axis.
    Bar { from: f64, to: f64, top: f64, color: Rgb },
    /// A vertical rule with a label.
    Rule { x: f64, label: String },
    /// A cell of a heatmap; without a colour if it has no value.
    Tile { x: f64, y: f64, color: Option<Rgb>, text: String },
    /// A ring around a marker.
    Ring { at: (f64, f64), color: Rgb },
    /// Text with a halo at a position of the plot.
    Note { at: (f64, f64), text: String, side: Side },
}

impl Mark {
    /// Drawing order: higher layers are drawn over lower ones.
    pub(crate) fn layer(&self) -> u8 {
        match self {
            Self::Band { .. } => 0,
            Self::Bar { .. } | Self::Tile { .. } => 1,
            Self::Rule { .. } => 2,
            Self::Line { .. } => 3,
            Self::ErrorX { .. } | Self::ErrorY { .. } => 4,
            Self::Point { .. } | Self::Ring { .. } => 5,
            Self::Note { .. } => 6,
        }
    }
}

/// The side of its position on which a text is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
    Over,
    Under,
    /// On a side where it hides nothing; not drawn if there is none.
    Free,
}

/// One pair of axes and everything drawn in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Panel {
    /// Shown above the panel; empty if the figure has only one panel.
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) marks: Vec<Mark>,
}

/// How a legend shows a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A filled square.
    Swatch,
    /// A line with its marker.
    Line,
    /// A line without a marker.
    PlainLine,
    /// Only a marker.
    Marker,
    /// A hollow marker.
    Hollow,
    /// A ring around a marker.
    Ring,
}

/// One entry of the legend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) label: String,
    pub(crate) look: Look,
    pub(crate) key: Key,
}

/// A colour scale next to the panels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColorBar {
    pub(crate) title: String,
    pub(crate) lo: f64,
    pub(crate) hi: f64,
}

/// The figure's numbers, for readers who cannot see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Data {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Data {
    /// A table with these columns.
    pub(crate) fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        Self { head: head.into_iter().map(str::to_owned).collect(), rows: vec![] }
    }
}

/// A figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figure {
    pub(crate) title: String,
    /// Small print below the title: what is shown, and over how many repeats.
    pub(crate) notes: Vec<String>,
    /// What the figure shows, in one sentence.
    pub(crate) finding: String,
    pub(crate) data: Data,
    pub(crate) panels: Vec<Panel>,
    /// Panels of a row share the names to the left of the first one.
    pub(crate) share_y: bool,
    /// Panels are stacked and share the x axis of the lowest one.
    pub(crate) stacked: bool,
    /// Number of panels in a row.
    pub(crate) columns: usize,
    /// Width and height of a panel's plot area, px.
    pub(crate) size: (f64, f64),
    pub(crate) legend: Vec<Entry>,
    pub(crate) colors: Option<ColorBar>,
    /// Layout that the plot's table asks for, independent of its kind.
    pub(crate) shape: Shaped,
}

/// How a figure fits into a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shaped {
    /// Physical width, mm.
    pub(crate) mm: Option<f64>,
    /// A font family to use before the default ones.
    pub(crate) font: String,
    pub(crate) legend: Legend,
}
