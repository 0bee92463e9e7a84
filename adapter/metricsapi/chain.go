package metricsapi

import (
	"context"
	"net/http"
	"time"

	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfeatures "k8s.io/apiserver/pkg/features"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
)

// chain returns what stands before the handlers, the last wrapped first. It is the library's chain without what this server
// does not need: everything here is read and answered from memory. Left out are
//   - the time limit with a goroutine for each request, whose stack has to grow each time: nothing waits here but questions to
//     the API server, which end with their context, and writing, which ends with its deadline;
//   - auditing: nothing is changed, and kube-apiserver has audited what it passes on;
//   - tracing, latency trackers, request logs, warnings, CORS, HSTS: nothing that Kubetide sets makes use of them;
//   - watch and goaway handling: there are no watches;
//   - the mark for requests that come before all paths are installed: the port serves when they are.
func (p *Provider) chain(api http.Handler, c *genericapiserver.Config, custom, external bool) http.Handler {
	handler := newAnswerer(p, withWriteDeadline(api, c.RequestTimeout, c.LongRunningFunc), c.RequestTimeout)
	// May the caller? Everything but health checks is asked of the API server; see access.
	handler = genericapifilters.WithAuthorization(handler, c.Authorization.Authorizer, c.Serializer)
	// Bounds what requests may take together; above it they get a 429.
	handler = genericfilters.WithMaxInFlightLimit(handler, c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight, c.LongRunningFunc)
	// kubectl --as at Kubetide's own port must not be answered with the caller's own rights.
	if c.FeatureGate.Enabled(genericfeatures.ConstrainedImpersonation) {
		handler = impersonation.WithConstrainedImpersonation(handler, c.Authorization.Authorizer, c.Serializer)
	} else {
		handler = impersonation.WithImpersonation(handler, c.Authorization.Authorizer, c.Serializer)
	}
	// Who is calling?
	handler = genericapifilters.WithAuthentication(handler, c.Authentication.Authenticator, genericapifilters.Unauthorized(c.Serializer),
		c.Authentication.APIAudiences, c.Authentication.RequestHeaderConfig)
	handler = withDeadline(handler, c)
	// A stop waits for the requests that are running.
	handler = genericfilters.WithWaitGroup(handler, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
	// What one caller may read is not for another's cache.
	handler = genericapifilters.WithCacheControl(handler)
	// What is asked for, for all of the above.
	handler = withRequestInfo(handler, c.RequestInfoResolver, custom, external)
	return genericfilters.WithPanicRecovery(handler, c.RequestInfoResolver)
}

// withDeadline bounds how long a request may wait. The library's filter reads the parameter timeout, which reads don't have.
func withDeadline(handler http.Handler, c *genericapiserver.Config) http.Handler {
	other := genericapifilters.WithRequestDeadline(handler, nil, nil, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if readOf(r) == nil {
			other.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), c.RequestTimeout)
		defer cancel()
		handler.ServeHTTP(w, r.WithContext(ctx))
	})
}

// withWriteDeadline keeps a client that does not read its answer from holding a place for ever.
func withWriteDeadline(handler http.Handler, limit time.Duration, longRunning request.LongRunningRequestCheck) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if info, ok := request.RequestInfoFrom(r.Context()); ok && !longRunning(r, info) {
			setWriteDeadline(w, limit)
		}
		handler.ServeHTTP(w, r)
	})
}

func setWriteDeadline(w http.ResponseWriter, limit time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit)) // both HTTP/1 and HTTP/2 can
}

// withRequestInfo says what is asked for, in the library's words, and marks reads.
func withRequestInfo(handler http.Handler, resolver request.RequestInfoResolver, custom, external bool) http.Handler {
	other := genericapifilters.WithRequestInfo(handler, resolver)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read := parseRead(r)
		if read == nil || read.custom && !custom || !read.custom && !external {
			other.ServeHTTP(w, r)
			return
		}
		ctx := context.WithValue(request.WithRequestInfo(r.Context(), &read.info), readKey{}, read)
		handler.ServeHTTP(w, r.WithContext(ctx))
	})
}
