// Uses a daemon with the demo app-server through a client of openapi-generator (go): a session, a turn with wait, an
// approval, an error, and a page of events. Its argument is the address.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"strings"
	"time"

	client "codexd.test/generated"
)

func must[T any](value T, response any, err error) T {
	if err != nil {
		log.Panicf("%v: %v", err, response)
	}
	return value
}

func main() {
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: os.Args[1]}}
	codexd, ctx := client.NewAPIClient(configuration), context.Background()

	cwd, _ := os.Getwd()
	body := client.CreateSession{Cwd: &cwd}
	created := must(codexd.SessionsAPI.CreateSession(ctx).CreateSession(body).Execute())
	session := created.Data.Session.SessionId

	turn := func(text string) client.SubmitTurn {
		return client.SubmitTurn{SessionId: session, Input: &client.SubmitTurnInput{String: &text}}
	}
	hello := must(codexd.TurnsAPI.SubmitTurn(ctx).SubmitTurn(turn("hello")).Wait(30).Execute())
	answer := hello.Data.Turn.Get().Text.Get()
	if !strings.HasPrefix(*answer, "Hello!") {
		log.Panic(*answer)
	}

	tour := must(codexd.TurnsAPI.SubmitTurn(ctx).SubmitTurn(turn("tour")).Execute())
	open := ""
	for open == "" {
		listed := must(codexd.RequestsAPI.ListRequests(ctx).SessionId(session).Execute())
		for _, request := range listed.Data.Requests {
			if request.Status == client.REQUESTSTATUS_PENDING {
				open = request.RequestId
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	accept := client.AnswerRequest{Decision: "accept"}
	must(codexd.RequestsAPI.AnswerRequest(ctx, open).AnswerRequest(accept).Execute())
	ended := must(codexd.TurnsAPI.ReadTurn(ctx, session, *tour.Data.TurnId.Get()).Wait(60).Execute())
	if ended.Data.Turn.Status != "completed" {
		log.Panic(ended.Data.Turn)
	}

	_, response, err := codexd.SessionsAPI.ReadSession(ctx, "nobody").Execute()
	failure, ok := err.(*client.GenericOpenAPIError).Model().(client.Failure)
	if response.StatusCode != 404 || !ok || failure.Error != "not_found" {
		log.Panic(err)
	}

	page := must(codexd.EventsAPI.ReadEvents(ctx).SessionId(session).Limit(1000).Execute())
	text := ""
	for _, event := range page.Data.Events {
		if event.Type != "app-server.turn.message.delta" {
			continue
		}
		encoded, _ := json.Marshal(event)
		known := client.KnownEvent{}
		if err := json.Unmarshal(encoded, &known); err != nil {
			log.Panic(err)
		}
		text += known.AppServerTurnMessageDeltaEvent.Detail.Delta
	}
	if !strings.HasPrefix(text, "Hello!") {
		log.Panic(text)
	}
}
