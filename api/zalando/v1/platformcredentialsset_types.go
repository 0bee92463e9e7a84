package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PlatformCredentialsSet asks the platform's operator for credentials. Its CRD is the operator's.
//
// +kubebuilder:object:root=true
type PlatformCredentialsSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PlatformCredentialsSpec   `json:"spec"`
	Status PlatformCredentialsStatus `json:"status,omitzero"`
}

// PlatformCredentialsSetList is a list of PlatformCredentialsSets.
//
// +kubebuilder:object:root=true
type PlatformCredentialsSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []PlatformCredentialsSet `json:"items"`
}

// PlatformCredentialsSpec is what is asked for. Upstream's client writes null for clients that are not set; here they are left out.
type PlatformCredentialsSpec struct {
	Application  string                               `json:"application"`
	Clients      map[string]PlatformCredentialsClient `json:"clients,omitempty"`
	Tokens       map[string]PCSToken                  `json:"tokens"`
	TokenVersion string                               `json:"token_version"`
}

// PlatformCredentialsClient is an OAuth client.
type PlatformCredentialsClient struct {
	Realm       string `json:"realm,omitempty"`
	Grant       string `json:"grant,omitempty"`
	RedirectURI string `json:"redirectUri,omitempty"`
}

// PlatformCredentialsStatus is what the operator issued.
type PlatformCredentialsStatus struct {
	ObservedGeneration int64                                     `json:"observedGeneration,omitempty"`
	Errors             []string                                  `json:"errors,omitempty"`
	Problems           []string                                  `json:"problems,omitempty"`
	Tokens             map[string]PlatformCredentialsTokenStatus `json:"tokens,omitempty"`
}

// PlatformCredentialsTokenStatus is one token that was issued.
type PlatformCredentialsTokenStatus struct {
	Expiration *metav1.Time `json:"expiration,omitempty"`
}
