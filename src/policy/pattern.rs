//! What a rule's `paths` say.

/// One pattern of `paths`.
#[derive(Clone, Debug)]
pub struct Pattern {}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong; what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') { Ok(Self {}) } else { Err("does not begin with a slash; write /contoso/web/**".into()) }
    }
}
