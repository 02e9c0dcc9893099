//! CUDA's user-mode libraries: which of them are installed, and where pip puts them.
#![allow(unsafe_code)] // loads shared objects

use std::path::{Path, PathBuf};

use crate::error::Unavailable;

/// One of CUDA's libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name in messages.
    pub title: &'static str,
    /// File names, newest first.
    pub names: &'static [&'static str],
    /// The pip package that holds it.
    pub package: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
}

/// The libraries that are used if they are installed.
pub const LIBRARIES: &[Library] = &[
    Library {
        title: "cuBLASLt",
        names: &["libcublasLt.so.13", "libcublasLt.so.12"],
        package: "nvidia-cublas",
        purpose: "matrix products",
    },
    Library {
        title: "cuDNN",
        names: &["libcudnn.so.9"],
        package: "nvidia-cudnn-cu13",
        purpose: "convolutions",
    },
    Library {
        title: "NVRTC",
        names: &["libnvrtc.so.13", "libnvrtc.so.12"],
        package: "nvidia-cuda-nvrtc",
        purpose: "compiling kernels that are not shipped as PTX",
    },
    Library {
        title: "CUPTI",
        names: &["libcupti.so.13", "libcupti.so.12"],
        package: "nvidia-cuda-cupti",
        purpose: "capture of unmodified programs",
    },
    Library {
        title: "NVML",
        names: &["libnvidia-ml.so.1"],
        package: "(part of the driver)",
        purpose: "clocks, temperature, power, MIG",
    },
];

/// Where a library was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LibraryState {
    /// Under this name or path.
    Found(String),
    /// Not found; what the loader reported.
    Missing(String),
}

/// Checks for every library whether it can be loaded.
#[must_use]
pub fn libraries() -> Vec<(Library, LibraryState)> {
    let state = |library: &Library| {
        let mut why = String::new();
        for name in library.names {
            match Loader::open(Path::new(name)) {
                Ok(_) => return LibraryState::Found((*name).to_owned()),
                Err(e) => why = e,
            }
        }
        LibraryState::Missing(why)
    };
    LIBRARIES.iter().map(|l| (*l, state(l))).collect()
}

/// Names the pip package of a library that the bindings cannot find.
pub(super) fn require(present: bool, title: &'static str) -> Result<(), Unavailable> {
    let known = LIBRARIES.iter().find(|l| l.title == title);
    let package = known.map_or("cuda-toolkit", |l| l.package);
    if present { Ok(()) } else { Err(Unavailable::NoLibrary { library: title, package }) }
}

/// A library that stays loaded.
pub struct Loader(&'static libloading::os::unix::Library);

impl Loader {
    /// Loads a library by name or path. It is never unloaded, since CUDA's libraries do not survive
    /// that.
    ///
    /// # Errors
    /// What the loader reports.
    pub fn open(path: &Path) -> Result<Self, String> {
        use libloading::os::unix::{Library as Object, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: NVIDIA's libraries, whose initialisers have no precondition.
        let object = unsafe { Object::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        object.map(|o| Self(Box::leak(Box::new(o)))).map_err(|e| e.to_string())
    }

    /// A function of the library, by its C name.
    ///
    /// # Safety
    /// `F` must be the function's own pointer type.
    #[must_use]
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Option<F> {
        let name = format!("{name}\0");
        // SAFETY: the caller vouches for the type; the library is never unloaded.
        unsafe { self.0.get::<F>(name.as_bytes()).ok().map(|s| *s) }
    }
}

/// pip puts libraries where the loader does not look. This loads them from `folders` by path, so that a
/// later search by name finds them loaded, and returns the paths. Dependencies come first.
pub fn preload(folders: &[PathBuf]) -> Vec<PathBuf> {
    const FIRST: [&str; 3] =
        ["libnvrtc-builtins.so.13.0", "libcublasLt.so.13", "libcublasLt.so.12"];
    let names = FIRST.iter().chain(LIBRARIES.iter().flat_map(|l| l.names));
    let mut loaded = Vec::new();
    for path in names.flat_map(|name| folders.iter().map(move |f| f.join(name))) {
        if path.exists() && !loaded.contains(&path) && Loader::open(&path).is_ok() {
            loaded.push(path);
        }
    }
    loaded
}
