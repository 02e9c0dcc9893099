//! Reads a file as bytes, decompressed if it is compressed, and reports progress.

use std::fs::File;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use ruzstd::decoding::StreamingDecoder;

use crate::files::{FileError, Problem};
use crate::import::ImportError;

/// Called with the number of bytes of the file that have been read.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Opens a file. gzip and zstd are recognised by their first bytes, whatever the file is called.
pub(super) fn open<'a>(path: &Path, progress: Progress<'a>) -> io::Result<Box<dyn Read + 'a>> {
    unpacked(Counted { from: File::open(path)?, done: 0, progress })
}

/// The content of a stream that may be compressed.
pub(super) fn unpacked<'a>(mut from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::new();
    from.by_ref().take(4).read_to_end(&mut magic)?;
    let packing = packing(&magic);
    let whole = BufReader::with_capacity(64 << 10, Cursor::new(magic).chain(from));
    Ok(match packing {
        Packing::None => Box::new(whole),
        Packing::Gzip => Box::new(Gzip { from: Some(whole), member: None }),
        Packing::Zstd => Box::new(Zstd { from: Some(whole), frame: None }),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

fn packing(magic: &[u8]) -> Packing {
    match magic {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
        _ => Packing::None,
    }
}

/// The text of a file, decompressed if it is compressed.
///
/// # Errors
/// A file that cannot be read, or is not UTF-8 text.
pub fn read_text(path: &Path) -> Result<String, ImportError> {
    let mut bytes = Vec::new();
    let read = open(path, &mut |_| {}).and_then(|mut from| from.read_to_end(&mut bytes));
    read.map_err(|e| super::io(path, e))?;
    let file = path.display().to_string();
    String::from_utf8(bytes).map_err(|_| FileError::bad(&file, 1, "file", Problem::Encoding))
}

/// Whether a file starts with these bytes.
pub(in crate::import) fn begins_with(path: &Path, magic: &[u8]) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(magic.len() as u64).read_to_end(&mut head)?;
    Ok(head == magic)
}

/// Whether a file is compressed.
pub(super) fn is_packed(path: &Path) -> io::Result<bool> {
    let mut magic = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut magic)?;
    Ok(packing(&magic) != Packing::None)
}

struct Counted<'a> {
    from: File,
    done: u64,
    progress: Progress<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(into)?;
        self.done += n as u64;
        (self.progress)(self.done);
        Ok(n)
    }
}

/// The members of a gzip file in succession. Bytes after them are not part of it: tapes and object
/// stores pad files.
struct Gzip<R: Read> {
    from: Option<Whole<R>>,
    member: Option<GzDecoder<Whole<R>>>,
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if self.member.is_none() {
                let Some(mut from) = self.from.take() else { return Ok(0) };
                if io::BufRead::fill_buf(&mut from)?.first() != Some(&0x1f) {
                    return Ok(0);
                }
                self.member = Some(GzDecoder::new(from));
            }
            let Some(member) = &mut self.member else { return Ok(0) };
            let n = member.read(into)?;
            if n > 0 {
                return Ok(n);
            }
            self.from = self.member.take().map(GzDecoder::into_inner);
        }
    }
}

type Whole<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;
type Frame<R> = StreamingDecoder<Whole<R>, ruzstd::decoding::FrameDecoder>;

/// The frames of a zstd file in succession.
struct Zstd<R: Read> {
    from: Option<Whole<R>>,
    frame: Option<Frame<R>>,
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if self.frame.is_none() {
                let Some(mut from) = self.from.take() else { return Ok(0) };
                if io::BufRead::fill_buf(&mut from)?.is_empty() {
                    return Ok(0);
                }
                self.frame = Some(StreamingDecoder::new(from).map_err(io::Error::other)?);
            }
            let Some(frame) = &mut self.frame else { return Ok(0) };
            let n = frame.read(into)?;
            if n > 0 {
                return Ok(n);
            }
            self.from = self.frame.take().map(StreamingDecoder::into_inner);
        }
    }
}
