//! What makes a struct of ours a resource of the API server. Not what is in it.

macro_rules! resource {
    ($name:ident, $spec:ty, $plural:literal) => {
        impl $name {
            pub const KIND: &str = stringify!($name);
            pub const PLURAL: &str = $plural;

            pub fn new(name: &str, spec: $spec) -> $name {
                let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
                let (api_version, kind) = ($crate::api::API_VERSION.into(), Self::KIND.into());
                $name { api_version, kind, metadata, spec, status: None }
            }
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = k8s_openapi::NamespaceResourceScope;

            fn kind(_: &()) -> std::borrow::Cow<'_, str> {
                Self::KIND.into()
            }

            fn group(_: &()) -> std::borrow::Cow<'_, str> {
                $crate::api::GROUP.into()
            }

            fn version(_: &()) -> std::borrow::Cow<'_, str> {
                $crate::api::VERSION.into()
            }

            fn plural(_: &()) -> std::borrow::Cow<'_, str> {
                Self::PLURAL.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
