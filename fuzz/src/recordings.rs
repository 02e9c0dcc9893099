//! What the readers of recordings share with their tests.

use std::path::Path;
use std::sync::LazyLock;

use cotenant_profiles::Device;
use cotenant_profiles::import::{Recording, StreamOptions, Tool};

#[path = "../../profiles/tests/it/recordings/databases.rs"]
mod databases;
pub(crate) mod fuzz;

fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::builtin("h100-sxm").unwrap());
    DEVICE.clone()
}

fn options() -> StreamOptions {
    StreamOptions { model: "net".to_owned(), batch: 8, ..StreamOptions::default() }
}

fn read(tool: Tool, path: &Path) -> Result<Recording, String> {
    Recording::read(tool, path, &mut |_| {}).map_err(|e| e.to_string())
}
