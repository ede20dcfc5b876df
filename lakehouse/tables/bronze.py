"""Bronze: what a feed may deliver, per subject. Field names are canonical; `conf/sources` maps feeds onto them."""

from __future__ import annotations

from lakehouse.columns import Pii, column, day, instant, integer, money, quantity, text
from lakehouse.declare import landing

landing(
    "transactions",
    {
        "basket_id": text("Receipt or invoice number."),
        "line_id": text("Line number within the basket where the feed has one."),
        "product_id": text("Product code as delivered."),
        "product_name": text("Product description as delivered with the line."),
        "customer_id": text("Customer number; null for a guest.", pii=Pii.IDENTIFIER),
        "store_id": text("Store number."),
        "channel": text("Sales channel as delivered; null where the feed has none."),
        "country": text("Country as delivered."),
        "sold_at": instant("When the line was sold, UTC."),
        "quantity": quantity("Pieces or weight; negative when returned."),
        "unit_price": column("decimal(18,4)", "Price per unit as delivered."),
        "amount": money("What the shop received for the line, when delivered."),
        "discount_amount": money("Price reduction by the shop, of either sign."),
        "coupon_amount": money("Reduction by a manufacturer's coupon, of either sign."),
        "coupon_match_amount": money("Shop's match of a coupon, of either sign."),
        "original_basket_id": text("Basket the returned line was bought in, when delivered."),
        "line_type": text("What kind of line it is, as delivered, where the feed says so."),
    },
    comment="Sales, returns and cancellations by basket line.",
)
landing(
    "products",
    {
        "product_id": text("Product code."),
        "product_name": text("Product name."),
        "department": text("Department."),
        "category": text("Product category."),
        "subcategory": text("Product type."),
        "brand_type": text("National or Private."),
        "manufacturer_id": text("Manufacturer number."),
        "package_size": text("Package size as printed."),
    },
    comment="Products and their hierarchy.",
)
landing(
    "customers",
    {
        "customer_id": text("Customer number.", pii=Pii.IDENTIFIER),
        "age_band": text("Age band of the main customer.", pii=Pii.QUASI),
        "income_band": text("Household income band.", pii=Pii.QUASI),
        "home_ownership": text("Home ownership.", pii=Pii.QUASI),
        "marital_status": text("Marital status.", pii=Pii.QUASI),
        "household_size": text("Household size band.", pii=Pii.QUASI),
        "household_composition": text("Household composition.", pii=Pii.QUASI),
        "kids_count": text("Number of kids band.", pii=Pii.QUASI),
        "country": text("Country."),
        "changed_at": instant("When these values became true, UTC; null when the feed does not say."),
    },
    comment="Customer master data and demographics.",
    owner="crm-data",
)
landing(
    "contact_points",
    {
        "customer_id": text("Customer number.", pii=Pii.IDENTIFIER),
        "email": text("E-mail address.", pii=Pii.CONTACT),
        "phone": text("Phone number.", pii=Pii.CONTACT),
        "first_name": text("Given name.", pii=Pii.CONTACT),
        "last_name": text("Family name.", pii=Pii.CONTACT),
        "street": text("Street and number.", pii=Pii.CONTACT),
        "postal_code": text("Postal code.", pii=Pii.CONTACT),
        "city": text("City.", pii=Pii.QUASI),
        "country": text("ISO 3166 alpha-2 country."),
    },
    comment="Addresses and phone numbers (the demo's are a labelled sample).",
    owner="crm-data",
)
landing(
    "consents",
    {
        "customer_id": text("Customer number.", pii=Pii.IDENTIFIER),
        "channel": text("email, sms, phone, post, ads."),
        "status": text("granted or denied."),
        "changed_at": instant("When the choice was made, UTC."),
    },
    comment="Consent per customer and channel (the demo's are a labelled sample).",
    owner="privacy",
)
landing(
    "campaigns",
    {
        "campaign_id": text("Campaign number."),
        "campaign_type": text("Type of campaign."),
        "starts_on": day("First day."),
        "ends_on": day("Last day."),
    },
    comment="Marketing campaigns.",
    owner="marketing",
)
landing(
    "campaign_contacts",
    {
        "campaign_id": text("Campaign number."),
        "customer_id": text("Customer contacted.", pii=Pii.IDENTIFIER),
    },
    comment="Who was contacted by which campaign.",
    owner="marketing",
)
landing(
    "coupons",
    {
        "coupon_id": text("Coupon code (UPC)."),
        "product_id": text("Product the coupon is good for."),
        "campaign_id": text("Campaign that issued it."),
    },
    comment="Coupons, products they apply to and campaigns that issue them.",
    owner="marketing",
)
landing(
    "coupon_redemptions",
    {
        "customer_id": text("Customer who redeemed.", pii=Pii.IDENTIFIER),
        "coupon_id": text("Coupon code."),
        "campaign_id": text("Campaign."),
        "redeemed_at": instant("When it was redeemed, UTC."),
    },
    comment="Coupon redemptions.",
    owner="marketing",
)
landing(
    "visitor_events",
    {
        "event_id": text("Number of the event, unique for the visitor."),
        "visitor_id": text("The web shop's number of a visitor: a browser, not a person.", pii=Pii.IDENTIFIER),
        "event_type": text("visit, page_view, cart_add, checkout or login."),
        "happened_at": instant("When, UTC."),
        "customer_id": text("Customer who logged in; of logins only.", pii=Pii.IDENTIFIER),
        "email": text("Address the visitor left.", pii=Pii.CONTACT),
        "page": text("Kind of page: home, category, product, ..."),
        "product_id": text("Product viewed or put into the cart."),
        "quantity": quantity("Pieces put into the cart."),
        "amount": money("Value put into the cart, or ordered, in merchant currency."),
    },
    comment="What visitors of a web shop did (the demo's are a labelled sample).",
    owner="crm-data",
)
landing(
    "promotions",
    {
        "product_id": text("Product promoted."),
        "store_id": text("Store."),
        "week": integer("Week number of the feed's calendar."),
        "display_code": text("Place of the in-store display; 0 = none."),
        "mailer_code": text("Place in the weekly mailer; 0 = none."),
    },
    comment="In-store displays and mailer placements by product, store and week.",
    owner="marketing",
)
landing(
    "exchange_rates",
    {
        "from_currency": text("ISO 4217 code."),
        "to_currency": text("ISO 4217 code."),
        "valid_on": day("Day the rate holds from."),
        "rate": text("Units of `to_currency` for one of `from_currency`, as delivered."),
    },
    comment="Exchange rates.",
    owner="finance",
)
landing(
    "settlements",
    {
        "settlement_id": text("Settlement number of the acquirer."),
        "channel": text("Channel settled."),
        "settled_on": day("Business day settled."),
        "gross_amount": money("Sales settled."),
        "fee_amount": money("Fees withheld."),
        "net_amount": money("Amount paid out."),
        "currency": text("ISO 4217 code."),
    },
    comment="Settlement files of the acquirer (the demo's are a labelled sample).",
    owner="finance",
)
