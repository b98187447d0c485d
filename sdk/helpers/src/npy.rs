//! Reads `.npy` files: arrays as NumPy saves them, of the element types that models give.
//!
//! Source: NumPy's own description of the format, versions 1 to 3 (`numpy.lib.format`).

/// The elements of an array, as the host keeps those of a model's output.
#[derive(Clone, Debug)]
pub enum Elements {
    Floats(Vec<f32>),
    /// Whole numbers of up to 16 bits, and booleans.
    Small(Vec<f32>),
    Integers(Vec<i64>),
}

/// Shape and elements of an array.
///
/// # Errors
/// When it is none, or none that a model could give.
pub fn read(bytes: &[u8]) -> Result<(Vec<u32>, Elements), String> {
    let (header, data) = split(bytes).ok_or("this is no .npy file")?;
    let value = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let (Some(kind), Some(order), Some(shape)) = (value("descr"), value("fortran_order"), value("shape")) else {
        return Err(format!("its header is not that of an array: {header}"));
    };
    if !order.starts_with("False") {
        return Err("it is in Fortran's order; save `numpy.ascontiguousarray(array)`".into());
    }
    let shape = shape.trim_start_matches('(').split(')').next().unwrap_or_default();
    let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty()).map(str::parse);
    let shape: Vec<u32> = sides.collect::<Result<_, _>>().map_err(|_| format!("its shape is ({shape})"))?;
    let kind = kind.trim_start_matches('\'').split('\'').next().unwrap_or_default();
    let elements = elements(kind, data)?;
    let length = match &elements {
        Elements::Floats(all) | Elements::Small(all) => all.len(),
        Elements::Integers(all) => all.len(),
    };
    let wanted: u64 = shape.iter().map(|side| u64::from(*side)).product();
    if length as u64 != wanted {
        return Err(format!("it has {length} elements, but its shape {shape:?} has {wanted}"));
    }
    Ok((shape, elements))
}

/// The header, and the elements behind it.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (length, rest) = match rest {
        [1, _, a, b, rest @ ..] => (u32::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]), rest),
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(length as usize)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

fn elements(kind: &str, data: &[u8]) -> Result<Elements, String> {
    macro_rules! of {
        ($number:ty, $into:ty) => {
            data.chunks_exact(size_of::<$number>())
                .map(|chunk| <$number>::from_le_bytes(chunk.try_into().unwrap_or_default()) as $into)
                .collect()
        };
    }
    Ok(match kind {
        "<f4" => Elements::Floats(of!(f32, f32)),
        "<f8" => Elements::Floats(of!(f64, f32)),
        "|b1" | "|u1" => Elements::Small(of!(u8, f32)),
        "|i1" => Elements::Small(of!(i8, f32)),
        "<u2" => Elements::Small(of!(u16, f32)),
        "<i2" => Elements::Small(of!(i16, f32)),
        "<i4" => Elements::Integers(of!(i32, i64)),
        "<u4" => Elements::Integers(of!(u32, i64)),
        "<i8" => Elements::Integers(of!(i64, i64)),
        other => return Err(format!("its elements are `{other}`; save them as float32, int64 or a smaller integer")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `numpy.save` writes it.
    fn array(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        [&b"\x93NUMPY\x01\0"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn arrays_of_what_models_give_are_read() {
        let floats = [1.5f32, -2.0].map(f32::to_le_bytes).concat();
        let (shape, elements) = read(&array("<f4", "(1, 2)", &floats)).unwrap();
        assert!(shape == [1, 2] && matches!(elements, Elements::Floats(all) if all == [1.5, -2.0]));
        let (shape, elements) = read(&array("<i8", "(1,)", &(-7i64).to_le_bytes())).unwrap();
        assert!(shape == [1] && matches!(elements, Elements::Integers(all) if all == [-7]));
        let (shape, elements) = read(&array("|u1", "()", &[255])).unwrap();
        assert!(shape.is_empty() && matches!(elements, Elements::Small(all) if all == [255.0]));
    }

    #[test]
    fn what_is_no_array_of_a_model_is_told() {
        for (bytes, words) in [
            (b"\x93NUMPY".to_vec(), "no .npy file"),
            (array("<c8", "(1,)", &[0; 8]), "`<c8`"),
            (array("<f4", "(2,)", &[0; 4]), "1 elements"),
            (array("<f4", "(x,)", &[0; 4]), "shape"),
            (String::from_utf8_lossy(&array("<f4", "(1,)", &[0; 4])).replace("False", "True ").into_bytes(), ".npy"),
        ] {
            let Err(why) = read(&bytes) else { panic!("{words}") };
            assert!(why.contains(words), "{why}");
        }
    }
}
