package sqs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/kubetide/kubetide/internal/sample"
)

// The codes of answers that people can do something about, besides those of throttling, which the library knows.
var (
	denied  = codes("AccessDenied AccessDeniedException KMS.AccessDeniedException KmsAccessDenied AuthorizationError OptInRequired")
	refused = codes("InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch InvalidSignatureException ExpiredToken " +
		"ExpiredTokenException RequestExpired InvalidAccessKeyId InvalidToken InvalidSecurity IncompleteSignature MissingAuthenticationToken")
	missing = codes("QueueDoesNotExist AWS.SimpleQueueService.NonExistentQueue")
)

func codes(text string) map[string]bool {
	set := map[string]bool{}
	for code := range strings.FieldsSeq(text) {
		set[code] = true
	}
	return set
}

// explain puts an error of the library into a sentence with the queue, the cause, and what to do.
func (c *collector) explain(action string, err error) error {
	who := "Kubetide's AWS identity"
	if c.config.role != "" {
		who = "the role " + c.config.role
	}
	if identity := identityError(""); errors.As(err, &identity) {
		return fmt.Errorf("%s: %w", c.config, identity)
	}
	api := smithy.APIError(nil)
	if !errors.As(err, &api) {
		return fmt.Errorf("%s: %s: %w", c.config, action, cause(err))
	}
	code, gone := api.ErrorCode(), (*types.QueueDoesNotExist)(nil)
	switch _, throttled := retry.DefaultThrottleErrorCodes[code]; {
	case missing[code] || errors.As(err, &gone):
		return sample.NoData("%s does not exist, or %s has no access to it: mend queue-name, region or owner-account (%s)", c.config, who, reason(err))
	case denied[code]:
		return fmt.Errorf("%s: access is denied; %s needs sqs:GetQueueUrl and sqs:GetQueueAttributes on it: %s", c.config, who, reason(err))
	case refused[code]:
		return fmt.Errorf("%s: the credentials of %s are not accepted: %s", c.config, who, reason(err))
	case throttled:
		return fmt.Errorf("%s: SQS has too many requests and throttles; a longer interval makes fewer: %s", c.config, reason(err))
	}
	return fmt.Errorf("%s: %s failed: %s", c.config, action, reason(err))
}

func isNoQueue(err error) bool { return errors.Is(err, sample.ErrNoData) }

// reason is what an answer of AWS says, or else why there is none, without the library's wrapping and the request's id, which is
// different each time.
func reason(err error) string {
	if identity := identityError(""); errors.As(err, &identity) {
		return string(identity)
	}
	if api := smithy.APIError(nil); errors.As(err, &api) {
		status := ""
		if answer := (*smithyhttp.ResponseError)(nil); errors.As(err, &answer) {
			status = fmt.Sprintf(" (status %d)", answer.HTTPStatusCode())
		}
		return clip(api.ErrorCode() + status + ": " + api.ErrorMessage())
	}
	return clip(cause(err).Error())
}

// cause is the error below the library's.
func cause(err error) error {
	if sent := (*smithyhttp.RequestSendError)(nil); errors.As(err, &sent) {
		return sent.Err
	}
	if read := (*smithy.DeserializationError)(nil); errors.As(err, &read) {
		if answer := (*smithyhttp.ResponseError)(nil); errors.As(err, &answer) {
			return fmt.Errorf("the answer of status %d cannot be read: %w", answer.HTTPStatusCode(), read.Err)
		}
		return read
	}
	return err
}

// clip bounds a foreign text.
func clip(text string) string {
	const longest = 400
	text = strings.ToValidUTF8(text, "?")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "..."
	}
	return text
}
