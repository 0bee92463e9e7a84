package certs

import (
	"crypto/tls"
	"crypto/x509"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	names = []string{"kubetide.kubetide-system.svc", "kubetide.kubetide-system", "kubetide"}
	start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
)

func pool(s state) *x509.CertPool {
	p := x509.NewCertPool()
	for _, ca := range s.cas {
		p.AddCert(ca.cert)
	}
	return p
}

func trusts(client, server state, now time.Time) error {
	_, err := server.serving.cert.Verify(x509.VerifyOptions{DNSName: names[0], Roots: pool(client), CurrentTime: now})
	return err
}

// A server that looks when plan says is always trusted, also by a client whose bundle is as old as publishDelay, and by one
// with today's bundle where the server has yesterday's certificate.
func TestRotationNeverLosesTrust(t *testing.T) {
	for seed := range uint64(8) { // rapid's hundred runs would sign for half a minute
		random := rand.New(rand.NewPCG(seed, 0))
		now := start
		var s state
		rotations := 0
		past := []struct {
			at time.Time
			s  state
		}{}
		for now.Before(start.Add(caLife + caLife/2)) {
			next, reasons, look, err := plan(s, names, now)
			if err != nil {
				t.Fatal(err)
			}
			if !look.After(now) {
				t.Fatalf("at %s plan looks again at %s", now, look)
			}
			if len(next.cas) > 2 {
				t.Fatalf("at %s there are %d CAs", now, len(next.cas))
			}
			if len(reasons) > 0 {
				rotations++
				if _, reasons, _, _ := plan(next, names, now); len(reasons) > 0 {
					t.Fatalf("at %s a second plan changes: %s", now, reasons)
				}
			}
			s = next
			past = append(past, struct {
				at time.Time
				s  state
			}{now, s})
			if err := trusts(s, s, now); err != nil {
				t.Fatalf("at %s: %v", now, err)
			}
			for now.Sub(past[0].at) > publishDelay {
				past = past[1:]
			}
			for _, old := range past[:len(past)-1] {
				if err := trusts(old.s, s, now); err != nil {
					t.Fatalf("at %s a client with the bundle of %s: %v", now, old.at, err)
				}
				if err := trusts(s, old.s, now); err != nil {
					t.Fatalf("at %s a server with the certificate of %s: %v", now, old.at, err)
				}
			}
			late := time.Duration(random.IntN(20*24)) * time.Hour
			early := time.Duration(12+random.IntN(60*24)) * time.Hour
			now = now.Add(min(look.Sub(now)+late, early))
		}
		if rotations < 8 {
			t.Fatalf("%d rotations in three years", rotations)
		}
	}
}

func TestPlan(t *testing.T) {
	fresh, _, _, err := plan(state{}, names, start)
	if err != nil {
		t.Fatal(err)
	}
	other, _, _, _ := plan(state{}, names, start.Add(time.Second))
	shared, _, _, _ := plan(state{}, append([]string{"kubetide-engine"}, names...), start)
	for name, tt := range map[string]struct {
		state state
		names []string
		at    time.Duration
		want  []string
	}{
		"nothing there: all is made":                     {state{}, names, 0, []string{"a new CA is due", "the serving certificate is missing"}},
		"all well: nothing is done":                      {fresh, names, 0, nil},
		"31 days before the end: nothing":                {fresh, names, servingLife - 31*24*time.Hour, nil},
		"30 days before the end: a new certificate":      {fresh, names, servingLife - servingRenew, []string{"the serving certificate expires at"}},
		"the Service has another name":                   {fresh, []string{"a.b.svc"}, 0, []string{"the serving certificate is not made out to a.b.svc"}},
		"one of two Services is gone: nothing":           {shared, names, 0, nil},
		"the certificate is lost, the CA stays":          {state{cas: fresh.cas}, names, 0, []string{"the serving certificate is missing"}},
		"the CA is lost":                                 {state{serving: fresh.serving}, names, 0, []string{"a new CA is due", "the serving certificate is not signed by the current CA"}},
		"a certificate of another CA":                    {state{cas: fresh.cas, serving: other.serving}, names, 0, []string{"the serving certificate is not signed"}},
		"120 days before the CA's end: a second CA":      {fresh, names, caLife - caRenew, []string{"a new CA is due", "the serving certificate expires at"}},
		"the CA ended while nobody ran":                  {fresh, names, caLife + time.Hour, []string{"has expired", "a new CA is due", "the serving certificate is not signed"}},
		"the CA was made by a clock that ran ahead":      {fresh, names, -2 * time.Hour, []string{"is not valid yet", "a new CA is due", "the serving certificate is not signed"}},
		"a clock half an hour behind the writer's is ok": {fresh, names, -backdate / 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, reasons, _, err := plan(tt.state, tt.names, start.Add(tt.at))
			if err != nil {
				t.Fatal(err)
			}
			if len(reasons) != len(tt.want) {
				t.Fatalf("reasons %q, want %q", reasons, tt.want)
			}
			for i := range reasons {
				if !strings.Contains(reasons[i], tt.want[i]) {
					t.Errorf("reason %q, want %q", reasons[i], tt.want[i])
				}
			}
			if got.serving.cert == nil || len(got.cas) == 0 {
				t.Errorf("incomplete: %+v", got)
			}
		})
	}
}

func TestWhatIsStoredIsReadBack(t *testing.T) {
	s, _, _, err := plan(state{}, names, start)
	if err != nil {
		t.Fatal(err)
	}
	s, _, _, _ = plan(s, names, start.Add(caLife-caRenew)) // two CAs
	data, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(data[keyCert], data[keyKey]); err != nil {
		t.Error(err)
	}
	again, err := decode(data).encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(data, again); diff != "" {
		t.Error(diff)
	}
	if n := len(decode(data).cas); n != 2 {
		t.Errorf("%d CAs", n)
	}
	data[keyCAKeys] = data[keyKey] // a foreign key for the first CA, none for the second
	if n := len(decode(data).cas); n != 0 {
		t.Errorf("%d CAs without their keys", n)
	}
}

func FuzzDecode(f *testing.F) {
	s, _, _, _ := plan(state{}, names, start)
	data, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[keyCACerts], data[keyCAKeys], data[keyCert], data[keyKey])
	f.Add([]byte("x"), []byte("-----BEGIN A-----\n-----END A-----\n"), []byte(nil), data[keyCert])
	f.Fuzz(func(t *testing.T, caCerts, caKeys, cert, key []byte) {
		s := decode(map[string][]byte{keyCACerts: caCerts, keyCAKeys: caKeys, keyCert: cert, keyKey: key})
		if _, _, _, err := plan(s, names, start); err != nil {
			t.Error(err)
		}
	})
}
