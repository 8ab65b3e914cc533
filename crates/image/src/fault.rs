//! What can be wrong with an image.

/// Faults of an image.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImageFault {
    /// The bytes are of no kind that we read.
    #[error("is not an image: only PNG, JPEG and .npy are read")]
    NotAnImage,
    /// It starts like an image but cannot be decoded to its end.
    #[error("is damaged or truncated: {0}")]
    Damaged(String),
    /// An integer that is no pixel.
    #[error("holds {got} (value number {index}): integers are pixels from 0 to 255, save other values as floats")]
    NotAPixel {
        /// Position of the first such value.
        index: usize,
        /// The value.
        got: f64,
    },
    /// Height or width differ from the model's input.
    #[error("has {got_width}x{got_height} pixels, the model needs {width}x{height}; resize it first")]
    Size {
        /// Needed width in pixels.
        width: usize,
        /// Needed height in pixels.
        height: usize,
        /// Width found.
        got_width: usize,
        /// Height found.
        got_height: usize,
    },
    /// Number of channels differs from the model's input.
    #[error("has {got} channel(s), the model needs {expected}; convert it first{}", if *got == 4 { " (remove the transparency channel)" } else { "" })]
    Channels {
        /// Channels needed.
        expected: usize,
        /// Channels found.
        got: usize,
    },
    /// The shape of an array differs in another way.
    #[error("has the shape {got:?}, the model needs {expected:?}")]
    Shape {
        /// Shape needed.
        expected: Vec<usize>,
        /// Shape found.
        got: Vec<usize>,
    },
    /// NaN or infinity.
    #[error("holds NaN or infinity (value number {index})")]
    NotFinite {
        /// Position of the first such value.
        index: usize,
    },
}

/// What is wrong with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageKind {
    /// It is none.
    None,
    /// It is damaged.
    Damaged,
    /// It has another size.
    Size,
    /// It has another number of channels.
    Channels,
    /// The array has another shape.
    Shape,
    /// It holds NaN or infinity.
    NotFinite,
}

impl ImageFault {
    /// Returns what kind of fault it is.
    pub fn kind(&self) -> ImageKind {
        match self {
            Self::NotAnImage => ImageKind::None,
            Self::Damaged(_) | Self::NotAPixel { .. } => ImageKind::Damaged,
            Self::Size { .. } => ImageKind::Size,
            Self::Channels { .. } => ImageKind::Channels,
            Self::Shape { .. } => ImageKind::Shape,
            Self::NotFinite { .. } => ImageKind::NotFinite,
        }
    }
}
