//! What a model gave for one frame: copied out of the session, each element exactly as it was.
//!
//! Invariants: an output that holds neither numbers nor text (a sequence, a map) is left out, and fails
//! nothing: a hook that looks for it finds it missing. Text comes behind all numbers, because hooks of the
//! contract 0.1.0 know outputs by their places and have no text.

use framehook_engine::media::{Element, Elements, Output, TensorDesc};
use ort::{
    session::SessionOutputs,
    value::{DynValue, Outlet, TensorElementType, ValueType},
};

use crate::model::ModelError;

/// The outputs of one run together, as `f32`: a segmentation of 2,048 x 1,024 pixels into 19
/// classes has 152 MiB, a detector at 1,280 x 1,280 pixels 16 MiB. Numbers of 64 bits take twice
/// that.
pub(crate) const MAX_OUTPUT_BYTES: u64 = 256 << 20;

/// To be filled.
fn empty() -> Output {
    Output { desc: TensorDesc::default(), data: Elements::F32(Vec::new()) }
}

fn element(ty: TensorElementType) -> Element {
    use TensorElementType as E;
    match ty {
        E::Float32 | E::Float16 | E::Bfloat16 | E::Float64 => Element::Float,
        E::String => Element::Text,
        _ => Element::Integer,
    }
}

/// Whether an output has text, so that hooks of the contract 0.2.0 can be shown it.
pub(crate) const fn has_text(ty: &ValueType) -> bool {
    matches!(ty, ValueType::Tensor { ty: TensorElementType::String, .. })
}

/// Whether an output has numbers, so that hooks can be shown it.
pub(crate) fn has_numbers(ty: &ValueType) -> bool {
    use TensorElementType as E;
    let ValueType::Tensor { ty, .. } = ty else { return false };
    matches!(
        ty,
        E::Float32
            | E::Float16
            | E::Bfloat16
            | E::Float64
            | E::Int64
            | E::Int32
            | E::Int16
            | E::Int8
            | E::Uint64
            | E::Uint32
            | E::Uint16
            | E::Uint8
            | E::Bool
    )
}

/// What a value takes as `f32`. Sides that are not known yet count as one; they are checked when
/// they are.
pub(crate) fn f32_bytes(ty: &ValueType) -> u64 {
    let ValueType::Tensor { shape, .. } = ty else { return 0 };
    let sides = shape.iter().map(|side| u64::try_from(*side).unwrap_or(1));
    sides.fold(size_of::<f32>() as u64, u64::saturating_mul)
}

/// # Errors
/// When outputs that take so much each are too large together.
pub(crate) fn check_size(bytes: impl Iterator<Item = u64>) -> Result<(), ModelError> {
    let total = bytes.fold(0, u64::saturating_add);
    if total > MAX_OUTPUT_BYTES { Err(ModelError::OutputSize { mib: total >> 20 }) } else { Ok(()) }
}

/// Whether each output has as many rows as this input, which leaves their number open: both say so by the
/// same name.
pub(crate) fn follow(outlets: &[Outlet], input: &Outlet) -> bool {
    let rows = |outlet: &Outlet| match outlet.dtype() {
        ValueType::Tensor { shape, dimension_symbols, .. } if shape.first() == Some(&-1) => {
            dimension_symbols.first().filter(|name| !name.is_empty()).map(ToString::to_string)
        }
        _ => None,
    };
    let wanted = rows(input);
    wanted.is_some() && outlets.iter().all(|outlet| rows(outlet) == wanted)
}

/// Copies the outputs of a model.
pub(crate) struct OutputReader {
    /// Into how many parts the elements of each output fall, one a row of the batch.
    rows: Vec<u32>,
}

/// The first output with elements that are not those of the rows of a batch, one after the other.
pub(crate) fn not_by_rows(outlets: &[Outlet], batch: u32) -> Option<&Outlet> {
    let is_shown = |ty: &ValueType| has_numbers(ty) || has_text(ty);
    outlets.iter().find(|outlet| is_shown(outlet.dtype()) && rows(outlet, batch) != batch)
}

fn rows(outlet: &Outlet, batch: u32) -> u32 {
    match outlet.dtype() {
        ValueType::Tensor { shape, .. } if shape.first() == Some(&i64::from(batch)) => batch,
        _ => 1,
    }
}

impl OutputReader {
    pub(crate) fn new(outlets: &[Outlet], batch: u32) -> Self {
        Self { rows: outlets.iter().map(|outlet| rows(outlet, batch)).collect() }
    }

    /// Where all of them have so many rows, see [`follow`].
    pub(crate) fn by_rows(outlets: &[Outlet], rows: u32) -> Self {
        Self { rows: vec![rows; outlets.len()] }
    }

    /// Fills `outputs` with what has numbers, then with what has text, of this row of the batch.
    pub(crate) fn read(&self, values: &SessionOutputs<'_>, row: usize, outputs: &mut Vec<Output>) -> ort::Result<()> {
        let mut filled = 0;
        for is_shown in [has_numbers, has_text] {
            for ((name, value), rows) in values.iter().zip(&self.rows) {
                if !is_shown(value.dtype()) {
                    continue;
                }
                if filled == outputs.len() {
                    outputs.push(empty());
                }
                if copy(name, &value, (*rows, row), &mut outputs[filled])? {
                    filled += 1;
                }
            }
        }
        outputs.truncate(filled);
        Ok(())
    }
}

/// Copies one row of so many. `false`: this cannot be shown, as text that is not UTF-8.
fn copy(name: &str, value: &DynValue, (rows, row): (u32, usize), output: &mut Output) -> ort::Result<bool> {
    use TensorElementType as E;
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else { return Ok(false) };
    let Output { desc, data } = output;
    if desc.name != name {
        name.clone_into(&mut desc.name);
    }
    desc.element = element(*ty);
    desc.shape.clear();
    desc.shape.extend(shape.iter().map(|side| u32::try_from(*side).unwrap_or_default()));
    if let Some(first) = desc.shape.first_mut().filter(|_| rows > 1) {
        if *first != rows {
            return Err(ort::Error::new(format!("output `{name}` has {first} rows for a batch of {rows}")));
        }
        *first = 1;
    }
    // An empty tensor may have no memory behind it.
    let count = if shape.contains(&0) { 0 } else { desc.shape.iter().map(|side| *side as usize).product() };
    macro_rules! copy {
        ($kind:ident, $element:ty, $convert:expr) => {{
            if !matches!(data, Elements::$kind(_)) {
                *data = Elements::$kind(Vec::new());
            }
            if let Elements::$kind(kept) = data {
                kept.clear();
                if count > 0 {
                    let (_, elements) = value.try_extract_tensor::<$element>()?;
                    kept.extend(elements.iter().skip(row * count).take(count).map($convert));
                }
            }
        }};
    }
    match ty {
        E::Float16 => copy!(F32, half::f16, |v| v.to_f32()),
        E::Bfloat16 => copy!(F32, half::bf16, |v| v.to_f32()),
        E::Int16 => copy!(F32, i16, |v| f32::from(*v)),
        E::Int8 => copy!(F32, i8, |v| f32::from(*v)),
        E::Uint16 => copy!(F32, u16, |v| f32::from(*v)),
        E::Uint8 => copy!(F32, u8, |v| f32::from(*v)),
        E::Bool => copy!(F32, bool, |v| f32::from(u8::from(*v))),
        E::Float64 => copy!(F64, f64, |v| *v),
        E::Int64 => copy!(I64, i64, |v| *v),
        E::Int32 => copy!(I64, i32, |v| i64::from(*v)),
        E::Uint64 => copy!(U64, u64, |v| *v),
        E::Uint32 => copy!(U64, u32, |v| u64::from(*v)),
        E::String => {
            let Ok((_, texts)) = value.try_extract_strings() else { return Ok(false) };
            *data = Elements::Text(texts.into_iter().skip(row * count).take(count).collect());
        }
        _ => copy!(F32, f32, |v| *v),
    }
    Ok(true)
}
