//! What a hook does with outputs that a model should never give.

use framehook_core::{hook_state::HookState, hook_stats::HookStage};

use super::{Kit, Outcome, Tally};
use crate::{
    conformance::{
        ModelOutput,
        synthetic::{Scene, flat},
    },
    media::{Element, Elements, Output},
};

/// Outputs that a model should never give: no trap, and the next instance is fine.
pub(super) fn damaged(kit: &mut Kit<'_>) -> Outcome {
    drop(kit.begin(Some(HookStage::Post))?);
    let before = kit.player.spent.out_of_range;
    let of = kit.model.1.clone();
    let all = |change: fn(&ModelOutput) -> Output| of.iter().map(change).collect::<Vec<_>>();
    let named = |shape: &[u32]| ModelOutput { name: "other".into(), shape: shape.to_vec(), is_integer: false };
    let mut cases: Vec<(&str, Vec<Output>)> = vec![
        ("outputs of zeros", all(|of| flat(of, 0.0))),
        ("outputs that are not numbers", all(|of| flat(of, f32::NAN))),
        ("infinite outputs", all(|of| flat(of, f32::INFINITY))),
        ("outputs of the largest number", all(|of| flat(of, f32::MAX))),
        ("outputs of ones", all(|of| flat(of, 1.0))),
        ("negative outputs", all(|of| flat(of, -1.0))),
        ("no output", Vec::new()),
        ("an output of another shape", vec![flat(&named(&[1, 3]), 0.5)]),
        ("an output without dimensions", vec![flat(&named(&[]), 0.5)]),
        ("outputs without elements", all(empty)),
        ("outputs of whole numbers", all(|of| flat(&ModelOutput { is_integer: true, ..of.clone() }, 1.0))),
        ("outputs of text", all(text)),
        ("outputs of another length", all(shorter)),
    ];
    let mut tally = Tally::default();
    for (on, outputs) in cases.drain(..) {
        let mut living = kit.again(&HookState::default(), None)?;
        for number in 0..2 {
            let scene = Scene { outputs: outputs.clone(), ..kit.scene(number) };
            tally.add(kit.call(&mut living, HookStage::Post, &scene, on)?).or_else(|_| kit.fresh(&mut living))?;
        }
        // Behind ordinary frames, too.
        let mut living = kit.again(&HookState::default(), None)?;
        let ordinary = kit.scene(0);
        kit.call(&mut living, HookStage::Post, &ordinary, "ordinary outputs")?;
        let scene = Scene { outputs, ..kit.scene(1) };
        kit.call(&mut living, HookStage::Post, &scene, on)?;
    }
    let mended = kit.player.spent.out_of_range - before;
    let mended = if mended == 0 { String::new() } else { format!(", {mended} results that the host mended") };
    Ok(format!("{}{mended}", tally.told()))
}

fn empty(of: &ModelOutput) -> Output {
    let mut shape = of.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = 0;
    }
    flat(&ModelOutput { shape, ..of.clone() }, 0.0)
}

fn shorter(of: &ModelOutput) -> Output {
    let mut shape = of.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = last.saturating_sub(1).max(1);
    }
    flat(&ModelOutput { shape, ..of.clone() }, 0.5)
}

fn text(of: &ModelOutput) -> Output {
    let Output { mut desc, data } = flat(of, 0.0);
    desc.element = Element::Text;
    Output { desc, data: Elements::Text(vec!["text".into(); data.values().len()]) }
}
