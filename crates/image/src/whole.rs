//! Checks that the file of a picture is there to its end: decoders fill what is missing with grey.

use crate::ImageFault;

fn damaged(why: &str) -> ImageFault {
    ImageFault::Damaged(why.into())
}

/// Refuses a JPEG that ends before its end marker (ISO/IEC 10918-1, B.1 and B.2).
pub(super) fn jpeg(bytes: &[u8]) -> Result<(), ImageFault> {
    const CUT: &str = "it ends in the middle of its picture";
    let mut at = 2;
    loop {
        // Markers may have any number of fill bytes in front.
        while bytes.get(at) == Some(&0xff) && bytes.get(at + 1) == Some(&0xff) {
            at += 1;
        }
        let (Some(&first), Some(&marker)) = (bytes.get(at), bytes.get(at + 1)) else { return Err(damaged(CUT)) };
        if first != 0xff {
            // Some cameras write bytes between segments: on to the next marker.
            at += 1;
            continue;
        }
        match marker {
            0xd9 => return Ok(()),
            // Without a length: restarts, and a zero that stands for a value of 255.
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            _ => {
                let Some(length) = bytes.get(at + 2..at + 4) else { return Err(damaged(CUT)) };
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                // Behind the head of a scan, its data goes on to the next marker: the loop looks
                // for that.
            }
        }
    }
}

/// Refuses a PNG that ends before its last chunk, or one of whose chunks has another checksum (PNG,
/// 5.3).
pub(super) fn png(bytes: &[u8]) -> Result<(), ImageFault> {
    const CUT: &str = "it ends before its last part";
    let mut rest = bytes.get(8..).unwrap_or_default();
    loop {
        let Some((head, tail)) = rest.split_at_checked(8) else { return Err(damaged(CUT)) };
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some((data, tail)) = tail.split_at_checked(length) else { return Err(damaged(CUT)) };
        let Some((sum, tail)) = tail.split_at_checked(4) else { return Err(damaged(CUT)) };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&head[4..]);
        hasher.update(data);
        if hasher.finalize().to_be_bytes() != sum {
            return Err(damaged("the checksum of one of its parts is wrong"));
        }
        if &head[4..] == b"IEND" {
            return Ok(());
        }
        rest = tail;
    }
}
