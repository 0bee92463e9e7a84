package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// maxStatusSize bounds what a node may tell of itself, in bytes.
const maxStatusSize = 64 << 20

// statusCommand asks a running server's admin port.
func statusCommand() *cobra.Command {
	var server, forward, output string
	status := &cobra.Command{
		Use: "status", Short: "Ask a running server about itself",
		Long: "Ask a running server, at its admin port, about the cluster as it sees it.",
	}
	flags := status.PersistentFlags()
	flags.StringVar(&server, "server.url", "http://localhost:8002", "The `URL` of the server's admin port.")
	flags.StringVar(&forward, "forward", "", "The `ID` of the node that the server has answer in its place.")
	flags.StringVarP(&output, "output", "o", "yaml", "How to print the answer: yaml or json.")

	ask := func(cmd *cobra.Command, path string, query url.Values) error {
		if output != "yaml" && output != "json" {
			return fmt.Errorf("--output: must be yaml or json, is %q", output)
		}
		base, err := url.Parse(server)
		if err != nil || base.Host == "" {
			return fmt.Errorf("--server.url: must be a URL as http://localhost:8002, is %q", server)
		}
		if forward != "" {
			query.Set("forward", forward)
		}
		target := base.JoinPath("status", "cluster", path)
		target.RawQuery = query.Encode()
		return printStatus(cmd, target, output)
	}
	cluster := &cobra.Command{Use: "cluster", Short: "The nodes, and who collects what"}
	var state string
	nodes := &cobra.Command{
		Use: "nodes", Short: "List the nodes that the server sees", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			if state != "" {
				query.Set("status", state)
			}
			return ask(cmd, "nodes", query)
		},
	}
	nodes.Flags().StringVar(&state, "status", "", "Only nodes of this `state`: joining, active or leaving.")
	node := &cobra.Command{
		Use: "node ID|local", Short: "Show one node", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd, "nodes/"+url.PathEscape(args[0]), url.Values{})
		},
	}
	queries := &cobra.Command{
		Use: "queries", Short: "List the queries: whose each is, and who collects it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return ask(cmd, "queries", url.Values{}) },
	}
	cluster.AddCommand(nodes, node, queries)
	status.AddCommand(cluster)
	return status
}

func printStatus(cmd *cobra.Command, target *url.URL, output string) error {
	client := &http.Client{Timeout: 20 * time.Second}
	request, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("the server does not answer: %w (is --server.url its admin port?)", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxStatusSize))
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", target, response.Status, strings.TrimSpace(string(body)))
	}
	if output == "json" {
		var indented json.RawMessage
		if err := json.Unmarshal(body, &indented); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		if body, err = json.MarshalIndent(indented, "", "  "); err != nil {
			return err
		}
		body = append(body, '\n')
	} else if body, err = yaml.JSONToYAML(body); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	_, err = cmd.OutOrStdout().Write(body)
	return err
}
