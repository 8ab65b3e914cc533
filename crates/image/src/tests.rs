use super::*;

fn decode(bytes: &[u8], shape: &[usize]) -> Result<Tensor, ImageFault> {
    decode_image(bytes, shape, &Preprocess::default())
}

fn npy(shape: &str, descr: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

#[test]
fn what_is_written_can_be_read() {
    for shape in [vec![4], vec![1, 2, 2], vec![2, 2, 1]] {
        let t = Tensor::new("t", shape.clone(), vec![1.5, -2.0, 0.0, 3e9]).unwrap();
        let bytes = npy_bytes(&t);
        assert_eq!((bytes.len() - 16) % 64, 0);
        assert_eq!(decode(&bytes, &shape).unwrap(), t);
    }
}

#[test]
fn arrays_are_read_with_or_without_batch() {
    let data: Vec<u8> = (0..8u8).flat_map(|v| f32::from(v).to_le_bytes()).collect();
    for shape in ["2, 2, 2", "1, 2, 2, 2"] {
        let t = decode(&npy(shape, "<f4", &data), &[2, 2, 2]).unwrap();
        assert_eq!(t.data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }
    let t = decode(&npy("2, 2", "|u1", &[0, 51, 102, 255]), &[1, 2, 2]).unwrap();
    assert_eq!(t.data, [0.0, 0.2, 0.4, 1.0]);
}

#[test]
fn every_fault_has_its_name() {
    let nan: Vec<u8> = [1.0, f32::NAN].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(decode(&npy("1, 1, 2", "<f4", &nan), &[1, 1, 2]), Err(ImageFault::NotFinite { index: 1 }));
    let channels = ImageFault::Channels { expected: 3, got: 2 };
    assert_eq!(decode(&npy("2, 1, 1", "<f4", &nan), &[3, 1, 1]), Err(channels));
    let size = ImageFault::Size { width: 2, height: 2, got_width: 1, got_height: 1 };
    assert_eq!(decode(&npy("3, 1, 1", "<f4", &nan), &[3, 2, 2]), Err(size));
    // A wrong number of dimensions is that, and neither a size nor a number of channels.
    for dims in [vec![3, 3], vec![2, 3, 2, 2], vec![1, 1, 3, 2, 2, 1], vec![3, 2, 2, 1]] {
        let text = dims.iter().map(|d| format!("{d},")).collect::<String>();
        let shape = ImageFault::Shape { expected: vec![3, 2, 2], got: dims };
        assert_eq!(decode(&npy(&text, "<f4", &nan), &[3, 2, 2]), Err(shape.clone()), "{text}");
        assert_eq!(shape.kind(), ImageKind::Shape);
    }
    let shape = ImageFault::Shape { expected: vec![3, 2, 2], got: vec![7] };
    assert_eq!(decode(&npy("7,", "<f4", &nan), &[3, 2, 2]), Err(shape));
    let damaged = |bytes: &[u8]| matches!(decode(bytes, &[1, 1, 2]), Err(ImageFault::Damaged(_)));
    let good = npy("1, 1, 2", "<f4", &[0; 8]);
    assert!(decode(&good, &[1, 1, 2]).is_ok());
    for len in 6..good.len() {
        assert!(damaged(&good[..len]), "cut to {len}");
    }
    assert!(damaged(&npy("1, 1, 2", "<c8", &[0; 16])));
    let no_pixel = ImageFault::NotAPixel { index: 0, got: -1.0 };
    assert_eq!(decode(&npy("1, 1, 2", "<i8", &[0xff; 16]), &[1, 1, 2]), Err(no_pixel));
    for hostile in ["99999999999999999999", "-1", "x"] {
        assert!(damaged(&npy(hostile, "<f4", &[])));
    }
    assert!(decode(&npy(&["18446744073709551615"; 9].join(","), "<f4", &[]), &[1, 1, 2]).is_err());
    assert_eq!(decode(b"", &[1, 1, 2]), Err(ImageFault::NotAnImage));
    assert_eq!(decode(b"GIF89a....", &[1, 1, 2]), Err(ImageFault::NotAnImage));
}

#[test]
fn arrays_of_all_types_and_orders_are_the_same_image() {
    let want = [0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0];
    let floats = |to: &dyn Fn(f32) -> Vec<u8>| want.iter().flat_map(|&v| to(v)).collect::<Vec<u8>>();
    for (descr, bytes) in [
        ("<f4", floats(&|v| v.to_le_bytes().into())),
        (">f4", floats(&|v| v.to_be_bytes().into())),
        ("<f8", floats(&|v| f64::from(v).to_le_bytes().into())),
        (">f8", floats(&|v| f64::from(v).to_be_bytes().into())),
        ("<f2", floats(&|v| half::f16::from_f32(v).to_le_bytes().into())),
        (">f2", floats(&|v| half::f16::from_f32(v).to_be_bytes().into())),
    ] {
        assert_eq!(decode(&npy("1, 2, 3", descr, &bytes), &[1, 2, 3]).unwrap().data, want, "{descr}");
    }
    for (descr, bytes) in [
        ("|u1", floats(&|v| vec![v as u8])),
        ("<i8", floats(&|v| (v as i64).to_le_bytes().into())),
        (">i2", floats(&|v| (v as i16).to_be_bytes().into())),
        ("<u4", floats(&|v| (v as u32).to_le_bytes().into())),
    ] {
        let got = decode(&npy("1, 2, 3", descr, &bytes), &[1, 2, 3]).unwrap().data;
        assert!(got.iter().zip(want).all(|(g, w)| (g - w / 255.0).abs() < 1e-7), "{descr}");
    }
    // Column by column.
    let columns = [0.0f32, 3.0, 1.0, 4.0, 2.0, 5.0].map(f32::to_le_bytes).concat();
    let fortran = String::from_utf8_lossy(&npy("2, 3", "<f4", &columns)[..60]).contains("False");
    assert!(fortran);
    let mut bytes = npy("2, 3", "<f4", &columns);
    let at = bytes.windows(5).position(|w| w == b"False").unwrap();
    bytes[at..at + 5].copy_from_slice(b"True ");
    assert_eq!(decode(&bytes, &[1, 2, 3]).unwrap().data, want);
}

#[test]
fn arrays_of_any_shape_are_read_whole() {
    for shape in [vec![4], vec![2, 1, 2], vec![4, 1, 1, 1, 1], vec![0, 3]] {
        let count = shape.iter().product();
        let t = Tensor { shape: shape.clone(), data: (0..count).map(|v| v as f32 - 1.5).collect() };
        assert_eq!(floats_of_npy(&npy_bytes(&t)).unwrap(), t);
    }
    let doubles = [0.5f64, -2.0].map(f64::to_le_bytes).concat();
    assert_eq!(floats_of_npy(&npy("1, 2", "<f8", &doubles)).unwrap().data, [0.5, -2.0]);
    let columns = [0.0f32, 3.0, 1.0, 4.0, 2.0, 5.0].map(f32::to_le_bytes).concat();
    let mut bytes = npy("2, 3", "<f4", &columns);
    let at = bytes.windows(5).position(|w| w == b"False").unwrap();
    bytes[at..at + 5].copy_from_slice(b"True ");
    assert_eq!(floats_of_npy(&bytes).unwrap().data, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn arrays_that_are_no_floats_or_not_whole_are_refused() {
    let one = 1.0f32.to_le_bytes();
    let damaged = |bytes: &[u8]| matches!(floats_of_npy(bytes), Err(ImageFault::Damaged(_)));
    assert!(damaged(&npy("1,", "<i4", &one)), "integers");
    assert!(damaged(&npy("2,", "<f4", &one)), "too few values");
    assert!(damaged(&npy("0,", "<f4", &one)), "too many");
    assert!(damaged(&npy("9223372036854775807, 9223372036854775807", "<f4", &one)), "no memory has that many");
    assert!(damaged(b"junk"));
    let large = 1e300f64.to_le_bytes();
    assert_eq!(floats_of_npy(&npy("1,", "<f8", &large)), Err(ImageFault::NotFinite { index: 0 }));
}

fn picture() -> image::RgbImage {
    image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([(x * 10) as u8, (y * 15) as u8, ((x * y) % 251) as u8]))
}

#[test]
fn pictures_that_are_cut_are_refused() {
    let cut =
        |bytes: &[u8]| matches!(decode(bytes, &[3, 16, 24]), Err(ImageFault::Damaged(_) | ImageFault::NotAnImage));
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let mut whole = Cursor::new(vec![]);
        picture().write_to(&mut whole, format).unwrap();
        let whole = whole.into_inner();
        assert!(decode(&whole, &[3, 16, 24]).is_ok());
        for length in 1..whole.len() {
            assert!(cut(&whole[..length]), "{format:?} cut to {length} of {} bytes", whole.len());
        }
    }
    let mut png = Cursor::new(vec![]);
    picture().write_to(&mut png, ImageFormat::Png).unwrap();
    let mut png = png.into_inner();
    let middle = png.len() / 2;
    png[middle] ^= 1;
    assert!(cut(&png), "a flipped bit");
}

#[test]
fn cameras_say_how_pictures_are_turned() {
    let mut jpeg = Cursor::new(vec![]);
    picture().write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    let jpeg = jpeg.into_inner();
    let upright = decode(&jpeg, &[3, 16, 24]).unwrap();
    // An EXIF segment with one entry: orientation 6, a quarter turn to the right.
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    let mut segment = vec![0xff, 0xe1];
    segment.extend((exif.len() as u16 + 2).to_be_bytes());
    segment.append(&mut exif);
    let turned = [&jpeg[..2], &segment, &jpeg[2..]].concat();
    assert!(matches!(decode(&turned, &[3, 16, 24]), Err(ImageFault::Size { got_width: 16, got_height: 24, .. })));
    let turned = decode(&turned, &[3, 24, 16]).unwrap();
    // The upper left corner has become the upper right one.
    assert_eq!(turned.data[15], upright.data[0]);
}

#[test]
fn pngs_of_images_come_back() {
    for shape in [[1, 2, 3], [3, 2, 3]] {
        let data = (0..shape.iter().product::<usize>()).map(|i| (i * 13) as f32 / 255.0).collect();
        let image = Tensor::new("image", shape.to_vec(), data).unwrap();
        assert_eq!(decode(&png_bytes(&image).unwrap(), &shape).unwrap(), image);
    }
    for shape in [vec![2, 2, 2], vec![4]] {
        let n = shape.iter().product();
        assert_eq!(png_bytes(&Tensor::new("image", shape, vec![0.0; n]).unwrap()), None);
    }
}
