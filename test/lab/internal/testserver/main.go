// Command testserver is the program that the lab's tests run as a pod. It binds its pod's address only.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	fmt.Println("started with", os.Args[1:])
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(out http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat("/scratch/sick"); err == nil {
			http.Error(out, "sick", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { _ = os.WriteFile("/scratch/sick", nil, 0o644) })
	mux.HandleFunc("/well", func(http.ResponseWriter, *http.Request) { _ = os.Remove("/scratch/sick") })
	mux.HandleFunc("/args", func(out http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(out).Encode(os.Args[1:]) })
	mux.HandleFunc("/env", func(out http.ResponseWriter, in *http.Request) {
		_, _ = io.WriteString(out, os.Getenv(in.FormValue("name")))
	})
	mux.HandleFunc("/hostname", func(out http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		_, _ = io.WriteString(out, name)
	})
	mux.HandleFunc("/file", func(out http.ResponseWriter, in *http.Request) {
		data, err := os.ReadFile(in.FormValue("path"))
		if err != nil {
			http.Error(out, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = out.Write(data)
	})
	mux.HandleFunc("/write", func(out http.ResponseWriter, in *http.Request) {
		if err := os.WriteFile(in.FormValue("path"), []byte("x"), 0o644); err != nil {
			http.Error(out, err.Error(), http.StatusForbidden)
		}
	})
	mux.HandleFunc("/whoami", func(out http.ResponseWriter, in *http.Request) {
		if err := whoami(in.Context(), out); err != nil {
			http.Error(out, err.Error(), http.StatusBadGateway)
		}
	})
	mux.HandleFunc("/resolve", func(out http.ResponseWriter, in *http.Request) {
		addresses, err := net.DefaultResolver.LookupHost(in.Context(), in.FormValue("name"))
		var failure *net.DNSError
		switch {
		case errors.As(err, &failure) && failure.IsNotFound:
			http.Error(out, err.Error(), http.StatusNotFound)
		case err != nil:
			http.Error(out, err.Error(), http.StatusBadGateway)
		default:
			slices.Sort(addresses)
			_, _ = io.WriteString(out, strings.Join(addresses, " "))
		}
	})
	client := &http.Client{Timeout: time.Second}
	mux.HandleFunc("/fetch", func(out http.ResponseWriter, in *http.Request) {
		response, err := client.Get(in.FormValue("url"))
		if err != nil {
			http.Error(out, err.Error(), http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		_, _ = io.Copy(out, response.Body)
	})
	address := os.Getenv("POD_IP")
	datagrams, err := net.ListenPacket("udp", net.JoinHostPort(address, "8080"))
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	var received datagramLog
	go received.read(datagrams)
	mux.HandleFunc("/received", func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, received.text()) })
	mux.HandleFunc("/send", func(out http.ResponseWriter, in *http.Request) {
		to, err := net.ResolveUDPAddr("udp", in.FormValue("to"))
		if err == nil {
			_, err = datagrams.WriteTo([]byte(in.FormValue("text")), to)
		}
		if err != nil {
			http.Error(out, err.Error(), http.StatusBadGateway)
		}
	})
	// An aggregated API with one group version and nothing in it.
	mux.HandleFunc("/apis/test.lab/v1", func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(out, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"test.lab/v1","resources":[]}`)
	})
	// An admission webhook that labels what it sees.
	mux.HandleFunc("/admit", func(out http.ResponseWriter, in *http.Request) {
		var review struct{ Request struct{ UID string } }
		_ = json.NewDecoder(io.LimitReader(in.Body, 1<<20)).Decode(&review)
		out.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(out).Encode(map[string]any{
			"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
			"response": map[string]any{
				"uid": review.Request.UID, "allowed": true, "patchType": "JSONPatch",
				"patch": []byte(`[{"op":"add","path":"/data","value":{"webhook":"was here"}}]`),
			},
		})
	})
	go func() { fmt.Println(http.ListenAndServe(net.JoinHostPort(address, "8080"), mux)); os.Exit(3) }()
	if _, err := os.Stat("/certificate/tls.crt"); err == nil {
		go func() {
			fmt.Println(http.ListenAndServeTLS(net.JoinHostPort(address, "8443"), "/certificate/tls.crt", "/certificate/tls.key", mux))
			os.Exit(3)
		}()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	time.Sleep(200 * time.Millisecond) // as one who drains
	fmt.Println("stopped gracefully")
}

// datagramLog holds the texts of datagrams in the order in which they came.
type datagramLog struct {
	mu    sync.Mutex
	texts []string
}

func (l *datagramLog) read(from net.PacketConn) {
	text := make([]byte, 1500)
	for {
		n, _, err := from.ReadFrom(text)
		if err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		l.mu.Lock()
		l.texts = append(l.texts, string(text[:n]))
		l.mu.Unlock()
	}
}

func (l *datagramLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.texts, " ")
}

// whoami asks the API server, with the pod's own token and its own certificate authority, who the caller is.
func whoami(ctx context.Context, out io.Writer) error {
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return err
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	url := "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")) +
		"/apis/authentication.k8s.io/v1/selfsubjectreviews"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url,
		strings.NewReader(`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var review struct {
		Status struct{ UserInfo struct{ Username string } }
	}
	if err := json.NewDecoder(response.Body).Decode(&review); err != nil {
		return err
	}
	_, err = io.WriteString(out, review.Status.UserInfo.Username)
	return err
}
