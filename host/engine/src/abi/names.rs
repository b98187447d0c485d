//! What classes are called.

/// Names of classes, by class id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    /// Those of the hook itself; empty if it has none.
    pub(crate) own: &'a [String],
    /// Those of the hooks before it, or of the model.
    pub(crate) earlier: &'a [String],
}

impl Names<'_> {
    /// What the hook calls a class.
    pub(crate) fn of(&self, class_id: u32) -> Option<&String> {
        let names = if self.own.is_empty() { self.earlier } else { self.own };
        names.get(class_id as usize).filter(|name| !name.is_empty())
    }
}
