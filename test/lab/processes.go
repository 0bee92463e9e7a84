package lab

import "syscall"

// PodPID returns the process id, inside the namespaces, of the first container of a process pod.
func (l *Lab) PodPID(namespace, name string) (int, error) { return l.kubelet.PID(namespace, name) }

// KillPod sends a signal to the process of the first container of a process pod: SIGKILL is a crash, SIGSTOP a hang.
func (l *Lab) KillPod(namespace, name string, signal syscall.Signal) error {
	return l.kubelet.Signal(namespace, name, signal)
}

// Logs returns what all containers of a process pod printed, over all restarts; of a pod that is gone, the last of its name.
func (l *Lab) Logs(namespace, name string) (string, error) { return l.kubelet.Logs(namespace, name) }
