//! The macros that declare events.

/// Declares the event types of one area, one after the other:
///
/// ```text
/// "type" => Variant { field: Type = MODE, … } => LEVEL, MESSAGE;
/// "type" => Variant(detail: Struct) => LEVEL, MESSAGE;
/// ```
///
/// Level and message are expressions; they see the fields, or the struct by its name.
/// The mode of a field defines how it is read and written:
///
/// | mode | |
/// | --- | --- |
/// | none | without it, or with a value of another type, the detail is not usable and changes nothing |
/// | `default` | it gets the default of its type then |
/// | `default skip_serializing_if` | the same, and `None` is not written |
/// | `skip` | it is not in the detail, only in the message |
macro_rules! event_types {
    (
        $(#[$enum_attribute:meta])*
        enum $events:ident {
            $(
                $(#[$attribute:meta])*
                $name:literal => $variant:ident $(($payload:ident: $payload_type:ty))? $({
                    $($(#[$field_attribute:meta])* $field:ident: $type:ty $(= $mode:ident $($skip:ident)?)?),* $(,)?
                })? => $level:expr, $message:expr;
            )*
        }
    ) => {
        $(#[$enum_attribute])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all_fields = "camelCase")]
        pub enum $events {
            $(
                $(#[$attribute])*
                #[serde(rename = $name)]
                $variant $(($payload_type))? $({
                    $(
                        $(#[$field_attribute])*
                        $(#[serde($mode, deserialize_with = "super::lenient")]
                        $(#[serde($skip = "Option::is_none")])?)?
                        $field: $type
                    ),*
                })?
            ),*
        }

        impl $events {
            /// The types of this area.
            pub(super) const TYPES: &'static [&'static str] = &[$($name),*];

            /// The type of the event.
            pub fn event_type(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name),*
                }
            }

            /// The level and the message.
            pub(super) fn text(&self) -> (Level, String) {
                match self {
                    $(Self::$variant $(($payload))? $({ $($field),* })? => {
                        // Not every message has all fields.
                        $(let _ = $payload;)? $($(let _ = $field;)*)?
                        ($level, $message)
                    })*
                }
            }

            /// Reads an event of this area.
            pub(super) fn read(event_type: &str, detail: &serde_json::Value) -> Option<Self> {
                Self::TYPES.contains(&event_type).then(|| super::read(event_type, detail)).flatten()
            }
        }
    };
}

/// Declares a detail that several event types share, with fields like those of [`event_types`].
macro_rules! event_detail {
    (
        $(#[$attribute:meta])*
        struct $detail:ident {
            $($(#[$field_attribute:meta])* $field:ident: $type:ty $(= $mode:ident $($skip:ident)?)?),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        #[schemars(inline)]
        pub struct $detail {
            $(
                $(#[$field_attribute])*
                $(#[serde($mode, deserialize_with = "super::lenient")]
                $(#[serde($skip = "Option::is_none")])?)?
                pub $field: $type
            ),*
        }
    };
}

/// Declares [`EventDetail`](super::EventDetail), the enum of all areas.
macro_rules! event_areas {
    ($($(#[$attribute:meta])* $area:ident($events:ident)),* $(,)?) => {
        /// What happened: the type of an event and its detail.
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(untagged)]
        pub enum EventDetail {
            $($(#[$attribute])* $area($events)),*
        }

        $(
            impl From<$events> for EventDetail {
                fn from(event: $events) -> Self {
                    EventDetail::$area(event)
                }
            }
        )*

        impl EventDetail {
            /// The types of all events.
            pub fn types() -> impl Iterator<Item = &'static str> {
                [$($events::TYPES),*].into_iter().flatten().copied()
            }

            /// The type of the event.
            pub fn event_type(&self) -> &'static str {
                match self {
                    $(Self::$area(event) => event.event_type()),*
                }
            }

            /// The level and the message: one sentence for the user.
            pub(super) fn text(&self) -> (Level, String) {
                match self {
                    $(Self::$area(event) => event.text()),*
                }
            }

            /// Reads an event from the log; `None` for an unknown type, and for a detail that is not usable.
            pub fn read(event_type: &str, detail: &Value) -> Option<Self> {
                None$(.or_else(|| $events::read(event_type, detail).map(Self::from)))*
            }

            /// The schemas of the areas: in each, every event type is a property with the schema of its detail.
            pub fn schemas(generator: &mut SchemaGenerator) -> Vec<Schema> {
                vec![$($events::json_schema(generator)),*]
            }
        }
    };
}
