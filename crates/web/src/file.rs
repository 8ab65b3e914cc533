//! A file of the page, read piece by piece: a wallet's tickets need not be in memory.

use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};

use js_sys::Uint8Array;
use wasm_bindgen::prelude::*;

#[wasm_bindgen(typescript_custom_section)]
const INTERFACES: &str = r#"
/** A file that is read piece by piece: in a worker `FileReaderSync` does it. */
export interface Pieces {
  /** Length in bytes. */
  readonly size: number;
  /** Returns `length` bytes from `offset` on. */
  read(offset: number, length: number): Uint8Array;
}
"#;

#[wasm_bindgen]
extern "C" {
    /// What JavaScript gives.
    #[wasm_bindgen(typescript_type = "Pieces")]
    pub type Pieces;

    #[wasm_bindgen(method, getter)]
    fn size(this: &Pieces) -> f64;

    #[wasm_bindgen(method, catch)]
    fn read(this: &Pieces, offset: f64, length: f64) -> std::result::Result<Uint8Array, JsValue>;
}

/// Such a file with a position.
pub(crate) struct PageFile {
    pieces: Pieces,
    at: u64,
}

impl PageFile {
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self { pieces, at: 0 }
    }
}

impl Read for PageFile {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = (self.pieces.size() as u64).saturating_sub(self.at);
        let length = left.min(buffer.len() as u64) as usize;
        if length == 0 {
            return Ok(0);
        }
        let piece = self.pieces.read(self.at as f64, length as f64);
        let piece = piece.map_err(|_| Error::other("the page could not read the file"))?;
        if piece.length() as usize != length {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the file has become shorter"));
        }
        piece.copy_to(&mut buffer[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for PageFile {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(offset) => (self.pieces.size() as u64, offset),
            SeekFrom::Current(offset) => (self.at, offset),
        };
        let to = base.checked_add_signed(offset);
        self.at = to.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a position before the file"))?;
        Ok(self.at)
    }
}
