//! Trace files, plain or compressed. Reading goes by the first bytes, writing by the file name.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::error::TraceError;

/// A decompressed stream of text.
pub(crate) type Input = Box<dyn BufRead + Send>;

const BUFFER: usize = 1 << 16;
/// What one zstd frame holds: the encoder works on whole frames, and a bounded frame keeps its
/// memory bounded. Concatenated frames are one legal zstd file.
const ZSTD_FRAME: usize = 4 << 20;

/// The file's name as messages show it.
pub(crate) fn name_of(path: &Path) -> String {
    path.display().to_string()
}

/// Refuses what is not a regular file: a device or a pipe may never end, and a trace is read more than
/// once.
pub(crate) fn regular(path: &Path) -> Result<(), TraceError> {
    let name = name_of(path);
    let meta = std::fs::metadata(path).map_err(|cause| TraceError::io(&name, cause))?;
    if meta.is_file() {
        return Ok(());
    }
    let what = if meta.is_dir() { "a folder" } else { "a device or a pipe" };
    Err(TraceError::file(&name, format!("is {what}; give a regular file")))
}

/// Opens a plain, gzip or zstd file and skips a byte order mark.
pub(crate) fn open(path: &Path) -> Result<Input, TraceError> {
    regular(path)?;
    let name = name_of(path);
    let fail = |cause| TraceError::io(&name, cause);
    let mut raw = BufReader::with_capacity(BUFFER, File::open(path).map_err(fail)?);
    let magic = raw.fill_buf().map_err(fail)?;
    let mut input: Input = if magic.starts_with(&[0x1F, 0x8B]) {
        Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(raw)))
    } else if magic.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
        Box::new(BufReader::with_capacity(BUFFER, ZstdReader::new(raw)))
    } else {
        Box::new(raw)
    };
    if input.fill_buf().map_err(fail)?.starts_with("\u{FEFF}".as_bytes()) {
        input.consume(3);
    }
    Ok(input)
}

/// The longest file that is one value of JSON: a week of requests has some 20 MiB.
const LONGEST_TEXT: u64 = 256 << 20;

/// The whole text of a file that is not a list of records.
pub(crate) fn text(input: Input, file: &str) -> Result<String, TraceError> {
    let mut text = String::new();
    let mut input = input.take(LONGEST_TEXT + 1);
    input.read_to_string(&mut text).map_err(|cause| TraceError::io(file, cause))?;
    if text.len() as u64 > LONGEST_TEXT {
        return Err(TraceError::file(file, "over 256 MiB of JSON: this is not a trace"));
    }
    Ok(text)
}

/// The longest record of a trace: a line of more is an error, not all memory. Lines of public
/// traces are below 64 KiB.
pub(crate) const LONGEST_RECORD: usize = 1 << 20;

/// Text behind a reader that looks for the end of a record: it fails where that end does not come.
pub(crate) struct Capped<R> {
    inner: R,
    /// Bytes handed out since the last record, shared with who counts the records.
    since: Arc<AtomicUsize>,
}

impl<R> Capped<R> {
    pub(crate) fn new(inner: R) -> (Self, Arc<AtomicUsize>) {
        let since = Arc::new(AtomicUsize::new(0));
        (Self { inner, since: Arc::clone(&since) }, since)
    }
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.since.load(Ordering::Relaxed) > LONGEST_RECORD {
            let problem = "a record of over 1 MiB: this is not a trace";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, problem));
        }
        let n = self.inner.read(buffer)?;
        self.since.fetch_add(n, Ordering::Relaxed);
        Ok(n)
    }
}

/// Reads every frame of a zstd file: the decoder underneath stops after the first.
struct ZstdReader {
    source: BufReader<File>,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl ZstdReader {
    fn new(source: BufReader<File>) -> Self {
        Self { source, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Opens the next frame, past skippable ones; false at the end of the file.
    fn next_frame(&mut self) -> std::io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = self.source.by_ref().take(length.into());
                    std::io::copy(&mut skipped, &mut std::io::sink())?;
                }
                Err(cause) => return Err(std::io::Error::other(cause)),
            }
        }
        Ok(false)
    }

    /// The frame is read to its end: its checksum must hold.
    fn end_frame(&mut self) -> std::io::Result<()> {
        self.in_frame = false;
        let stored = self.decoder.get_checksum_from_data();
        if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
            return Err(std::io::Error::other("zstd checksum mismatch: the file is damaged"));
        }
        Ok(())
    }
}

impl Read for ZstdReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.in_frame || self.next_frame()? {
            while self.decoder.can_collect() < buffer.len() && !self.decoder.is_finished() {
                let wanted = BlockDecodingStrategy::UptoBytes(buffer.len());
                self.decoder
                    .decode_blocks(&mut self.source, wanted)
                    .map_err(std::io::Error::other)?;
            }
            let n = self.decoder.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            self.end_frame()?;
        }
        Ok(0)
    }
}

/// A file under construction, compressed as its name says.
#[derive(Debug)]
pub(crate) enum Output {
    Plain(BufWriter<File>),
    Gzip(BufWriter<GzEncoder<File>>),
    Zstd { file: File, pending: Vec<u8> },
}

impl Output {
    /// Creates `path`; `like` names the file whose ending decides the compression.
    pub(crate) fn create(path: &Path, like: &Path) -> Result<Self, TraceError> {
        let file = File::create(path).map_err(|cause| TraceError::io(&name_of(path), cause))?;
        let ending = like.extension().and_then(|e| e.to_str()).unwrap_or("");
        Ok(match ending {
            "gz" => {
                let encoder = GzEncoder::new(file, Compression::default());
                Self::Gzip(BufWriter::with_capacity(BUFFER, encoder))
            }
            "zst" => Self::Zstd { file, pending: Vec::with_capacity(ZSTD_FRAME) },
            _ => Self::Plain(BufWriter::with_capacity(BUFFER, file)),
        })
    }

    /// Ends the last frame and hands back the file, so that another member can follow.
    pub(crate) fn finish(self) -> std::io::Result<File> {
        match self {
            Self::Plain(writer) => writer.into_inner().map_err(|e| e.into_error()),
            Self::Gzip(writer) => writer.into_inner().map_err(|e| e.into_error())?.finish(),
            Self::Zstd { mut file, pending } => {
                if !pending.is_empty() {
                    file.write_all(&compress_to_vec(&pending[..], CompressionLevel::Fastest))?;
                }
                Ok(file)
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(writer) => writer.write(bytes),
            Self::Gzip(writer) => writer.write(bytes),
            Self::Zstd { file, pending } => {
                pending.extend_from_slice(bytes);
                if pending.len() >= ZSTD_FRAME {
                    file.write_all(&compress_to_vec(&pending[..], CompressionLevel::Fastest))?;
                    pending.clear();
                }
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(writer) => writer.flush(),
            Self::Gzip(writer) => writer.flush(),
            Self::Zstd { .. } => Ok(()),
        }
    }
}
