//! `cotenant gpu fit`: a device's contention constants from measured pairs.

use std::path::{Path, PathBuf};

use clap::Args;
use cotenant_profiles::{Device, Profile, Source, files};
use cotenant_replay::costs::with_line;
use cotenant_replay::fit::{self, Constant, FEWEST, Fit};

use super::gpu::{device_text, folder_of};
use crate::fail::{Done, Failure};
use crate::folder::write_whole;
use crate::say;
use crate::text::{align, count};

/// Fit a device's contention constants to measured pairs of kernels
///
/// `profile collect` measures pairs side by side (corun.csv). A constant takes the place of the device
/// file's only if it errs less on pairs that it was not fitted to.
#[derive(Args)]
#[command(after_help = "Example:\n  \
    cotenant gpu fit --device h100-sxm --profiles out/profiles/h100-sxm --out out/fit")]
pub(crate) struct FitArgs {
    /// GPU of the pairs: a name or the path of a .toml file, whose other lines are kept
    #[arg(long)]
    device: String,
    /// Folder of the profile with the pairs
    #[arg(long, value_name = "DIR")]
    profiles: PathBuf,
    /// Folder for the device file and fit.csv [default: out/profiles/DEVICE/fit]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Bad input, a profile without pairs, a folder that cannot be written.
pub(super) fn run(args: &FitArgs) -> Done {
    let device = Device::find(&args.device, Path::new("")).map_err(Failure::input)?;
    let text = device_text(&args.device, &device)?;
    let profile = files::read(&args.profiles).map_err(Failure::input)?;
    let file = args.profiles.join("corun.csv");
    if profile.corun.is_empty() {
        let why = "no pairs in it: `cotenant profile collect --pairs 4` measures them";
        return Err(Failure::input(format!("{}: {why}", file.display())));
    }
    if profile.device != device.name {
        let why = format!("pairs of {}, not of {}", profile.device, device.name);
        return Err(Failure::input(format!("{}: {why}", file.display())));
    }
    let fit = fit::fit(&profile, &device);
    let folder = args.out.clone().unwrap_or_else(|| folder_of(&device).join("fit"));
    let to = folder.join(format!("{}.toml", device.name));
    let new = lines(&text, &profile, &fit);
    Device::parse(&new, &to.display().to_string()).map_err(Failure::failed)?;
    write_whole(&folder.join("fit.csv"), table(&profile, &fit).as_bytes())?;
    write_whole(&to, new.as_bytes())?;
    let rows: Vec<Vec<String>> = fit.constants.iter().map(row).collect();
    let head = ["constant", "shipped", "fitted", "error shipped", "error held out", ""];
    say::out(&align(&head, &rows))?;
    let starved = fit.sides.iter().filter(|s| s.starved).count();
    say::out(&format!(
        "{} of {}, {starved} of them left out: sharing the bandwidth explains them; {}\n",
        count(fit.sides.len(), "side"),
        count(profile.corun.len(), "pair"),
        to.display()
    ))
}

fn numbers(values: &[f64]) -> String {
    let text: Vec<String> = values.iter().map(|v| format!("{v:.4}")).collect();
    text.join(", ")
}

fn row(c: &Constant) -> Vec<String> {
    let error = |e: Option<f64>| e.map_or_else(|| "-".to_owned(), |e| format!("{e:.4}"));
    let said = match (&c.fitted, c.is_better()) {
        (None, _) => format!("kept: fewer than {FEWEST} sides"),
        (_, true) => "fitted".to_owned(),
        (_, false) => "kept: the fitted one errs no less on pairs it has not seen".to_owned(),
    };
    vec![
        c.key.to_owned(),
        numbers(&c.shipped),
        c.fitted.as_deref().map_or_else(|| "-".to_owned(), numbers),
        error(Some(c.shipped_error)),
        error(c.held_out_error),
        said,
    ]
}

/// The device file with the constants that err less.
fn lines(text: &str, profile: &Profile, fit: &Fit) -> String {
    let fact = |key: &str| profile.provenance.get(key).map_or("unknown", String::as_str);
    let source = match profile.source {
        Source::Measured => format!("measured: {}, ", fact("date")),
        _ => "knob: fitted to pairs that nobody measured, ".to_owned(),
    };
    let mut new = text.to_owned();
    for c in fit.constants.iter().filter(|c| c.is_better()) {
        let value = match c.value() {
            [one] => format!("{one:.4}"),
            all => format!("[{}]", numbers(all)),
        };
        let pairs = count(profile.corun.len(), "pair");
        let (held, shipped) = (c.held_out_error.unwrap_or(0.0), c.shipped_error);
        let why = format!("{pairs}, error {held:.3} on pairs not fitted to, {shipped:.3} before");
        new = with_line(&new, "contention", c.key, &format!("{value}  # {source}{why}"));
    }
    new
}

/// `fit.csv`: what the constants were fitted to.
fn table(profile: &Profile, fit: &Fit) -> String {
    let source = match profile.source {
        Source::Measured => "measured",
        _ => "analytic",
    };
    let mut text = format!(
        "# cotenant-fit v1\n# device={}\n# source={source}\nkernel,cus,neighbour,neighbour_cus,slow_down,starved\n",
        profile.device
    );
    for s in &fit.sides {
        let ([kernel, neighbour], [cus, theirs]) = (&s.kernels, s.cus);
        text += &format!("{kernel},{cus},{neighbour},{theirs},{:.6},{}\n", s.slow_down, s.starved);
    }
    text
}
