//! The requests that the app-server sends and that a client can answer.

/// Approval of a command.
pub const COMMAND_APPROVAL: &str = "item/commandExecution/requestApproval";
/// Approval of a patch.
pub const FILE_CHANGE_APPROVAL: &str = "item/fileChange/requestApproval";
/// Approval of more permissions.
pub const PERMISSIONS_APPROVAL: &str = "item/permissions/requestApproval";
/// Questions to the user.
pub const USER_INPUT: &str = "item/tool/requestUserInput";
/// A question of an MCP server.
pub const ELICITATION: &str = "mcpServer/elicitation/request";
/// Approval of a command, of clients of the first protocol.
pub const LEGACY_COMMAND_APPROVAL: &str = "execCommandApproval";
/// Approval of a patch, of clients of the first protocol.
pub const LEGACY_PATCH_APPROVAL: &str = "applyPatchApproval";

/// Every method that a client can answer.
pub const ALL: &[&str] = &[
    COMMAND_APPROVAL,
    FILE_CHANGE_APPROVAL,
    PERMISSIONS_APPROVAL,
    USER_INPUT,
    ELICITATION,
    LEGACY_COMMAND_APPROVAL,
    LEGACY_PATCH_APPROVAL,
];

/// The `kind` of a [`COMMAND_APPROVAL`] that is about input to a command that runs already.
pub const WRITE_STDIN: &str = "writeStdin";
/// The `mode` of an [`ELICITATION`] that asks the user to visit an address.
pub const MODE_URL: &str = "url";

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerRequestKind {
    /// [`COMMAND_APPROVAL`].
    Command,
    /// [`FILE_CHANGE_APPROVAL`].
    FileChange,
    /// [`PERMISSIONS_APPROVAL`].
    Permissions,
    /// [`USER_INPUT`].
    UserInput,
    /// [`ELICITATION`].
    Elicitation,
    /// [`LEGACY_COMMAND_APPROVAL`].
    LegacyCommand,
    /// [`LEGACY_PATCH_APPROVAL`].
    LegacyPatch,
}

impl ServerRequestKind {
    /// The kind of a method; `None` for a request that no client can answer, which is refused at once.
    pub fn of(method: &str) -> Option<Self> {
        Some(match method {
            COMMAND_APPROVAL => Self::Command,
            FILE_CHANGE_APPROVAL => Self::FileChange,
            PERMISSIONS_APPROVAL => Self::Permissions,
            USER_INPUT => Self::UserInput,
            ELICITATION => Self::Elicitation,
            LEGACY_COMMAND_APPROVAL => Self::LegacyCommand,
            LEGACY_PATCH_APPROVAL => Self::LegacyPatch,
            _ => return None,
        })
    }
}

/// Whether a client can answer a request of this method.
pub fn is_answerable(method: &str) -> bool {
    ServerRequestKind::of(method).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_request_kind_knows_every_answerable_method() {
        assert!(ALL.iter().all(|method| is_answerable(method)));
        assert!(!is_answerable("attestation/generate"));
    }
}
