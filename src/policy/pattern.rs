//! What a rule's `paths` say.

/// One pattern of `paths`.
#[derive(Clone, Debug)]
pub struct Pattern {}
