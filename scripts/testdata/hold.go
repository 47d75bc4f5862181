// hold ADDRESS COUNT COMMAND... runs COMMAND while it holds COUNT connections to a web server. Over each of them
// it has got a page, so they are open all the way.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
)

func main() {
	if err := hold(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hold:", err)
		os.Exit(1)
	}
}

func hold(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: hold ADDRESS COUNT COMMAND")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for range count {
		conn, err := net.Dial("tcp", args[0])
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := get(conn); err != nil {
			return fmt.Errorf("get a page from %s: %w", args[0], err)
		}
	}
	command := exec.Command(args[2], args[3:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	return command.Run()
}

// get fetches a page and leaves the connection open.
func get(conn net.Conn) error {
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", conn.RemoteAddr()); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
