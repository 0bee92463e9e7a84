package collectors

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubetide/kubetide/internal/outbound"
)

// CheckSecretName returns a KeyError of the setting `secret` if no Secret can have the name.
func CheckSecretName(name string) error {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return BadKey("secret", "%.100q is not the name of a Secret", name)
	}
	return nil
}

// Login returns the client to ask with and the credentials to send, nil if there are none, as a tenant's Secret has them.
func Login(ctx context.Context, secrets Secrets, client *outbound.Client, namespace, name string) (*outbound.Client, *outbound.Credentials, error) {
	secret, err := secrets.Secret(ctx, namespace, name)
	if err != nil {
		return nil, nil, err
	}
	client, credentials, err := client.WithSecret(secret.Host, secret.Data)
	if err != nil {
		return nil, nil, fmt.Errorf("the Secret %s/%s: %w", namespace, name, err)
	}
	return client, credentials, nil
}
