//! Device memory, and pinned memory of the host.
#![allow(unsafe_code)] // the driver's C interface; reached only after the probe

use std::rc::Rc;

use cudarc::driver::sys;

use super::driver::{Context, Stream, check, cu};
use crate::device::Direction;
use crate::error::DeviceError;

/// Device memory.
pub(super) struct Buffer {
    pub(super) address: u64,
    pub(super) bytes: usize,
    _context: Rc<Context>,
}

impl Buffer {
    /// Zeroed memory of at least one byte, since the driver does not allocate zero bytes.
    pub(super) fn zeroed(context: &Rc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        let bytes = bytes.max(1);
        let mut address = 0;
        // SAFETY: the memory that is set was just allocated.
        unsafe {
            cu!(cuMemAlloc_v2(&raw mut address, bytes))?;
            let buffer = Self { address, bytes, _context: Rc::clone(context) };
            cu!(cuMemsetD8_v2(address, 0, bytes))?;
            settle()?;
            Ok(buffer)
        }
    }

    /// `bytes` bytes that repeat `once`; the device itself writes most of them.
    pub(super) fn repeated(
        context: &Rc<Context>,
        once: &[u8],
        bytes: usize,
    ) -> Result<Self, DeviceError> {
        let buffer = Self::zeroed(context, bytes)?;
        let mut known = once.len().min(bytes);
        buffer.write(&once[..known])?;
        while known > 0 && known < bytes {
            let more = known.min(bytes - known);
            let (to, from) = (buffer.address + known as u64, buffer.address);
            // SAFETY: both parts lie in the buffer and do not overlap.
            unsafe { cu!(cuMemcpyDtoD_v2(to, from, more))? };
            known += more;
        }
        settle()?;
        Ok(buffer)
    }

    pub(super) fn filled(context: &Rc<Context>, content: &[u8]) -> Result<Self, DeviceError> {
        let buffer = Self::zeroed(context, content.len())?;
        buffer.write(content)?;
        Ok(buffer)
    }

    /// Overwrites the start of the buffer, or all of it if the content is longer.
    pub(super) fn write(&self, content: &[u8]) -> Result<(), DeviceError> {
        let bytes = content.len().min(self.bytes);
        if bytes > 0 {
            let from = content.as_ptr().cast();
            // SAFETY: neither the buffer nor the content is smaller.
            unsafe { cu!(cuMemcpyHtoD_v2(self.address, from, bytes))? };
        }
        settle()
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, DeviceError> {
        let mut content = vec![0u8; self.bytes];
        let to = content.as_mut_ptr().cast();
        // SAFETY: the content is as large as the buffer.
        unsafe { cu!(cuMemcpyDtoH_v2(to, self.address, self.bytes))? };
        Ok(content)
    }

    /// The buffer as 64-bit numbers.
    pub(super) fn read_words(&self) -> Result<Vec<u64>, DeviceError> {
        let bytes = self.read()?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(words.iter().map(|w| u64::from_le_bytes(*w)).collect())
    }
}

/// Waits for the default stream. Setting and copying memory may return before the device has done it,
/// and non-blocking streams such as ours would not wait for it.
fn settle() -> Result<(), DeviceError> {
    // SAFETY: a context is current; a null stream is its default stream.
    unsafe { cu!(cuStreamSynchronize(std::ptr::null_mut())) }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed`.
        let _ = unsafe { cu!(cuMemFree_v2(self.address)) };
    }
}

/// Page-locked host memory, which the copy engines access directly.
pub(super) struct Pinned {
    raw: *mut std::ffi::c_void,
    bytes: usize,
    _context: Rc<Context>,
}

impl Pinned {
    pub(super) fn new(context: &Rc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one pointer; the memory is set before it is read.
        unsafe {
            cu!(cuMemAllocHost_v2(&raw mut raw, bytes))?;
            std::ptr::write_bytes(raw.cast::<u8>(), 0, bytes);
        }
        Ok(Self { raw, bytes, _context: Rc::clone(context) })
    }

    /// Queues a copy of the first `bytes` bytes, or of all bytes if there are fewer, to or from a
    /// buffer.
    pub(super) fn copy(
        &self,
        direction: Direction,
        device: &Buffer,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let bytes = bytes.min(self.bytes).min(device.bytes);
        // SAFETY: both are as large; the caller keeps them until the stream has ended.
        unsafe {
            match direction {
                Direction::In => {
                    cu!(cuMemcpyHtoDAsync_v2(device.address, self.raw, bytes, stream.raw))
                }
                Direction::Out => {
                    cu!(cuMemcpyDtoHAsync_v2(self.raw, device.address, bytes, stream.raw))
                }
            }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`.
        let _ = unsafe { cu!(cuMemFreeHost(self.raw)) };
    }
}
